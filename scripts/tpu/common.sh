# shellcheck shell=bash disable=SC2034  # what seems unused here is for the scripts that source it
# Sourced by the scripts beside it: the settings, their checks, and how a command is run or shown.
#
# Settings are environment variables; export yours, or edit the defaults here.
#
#   TPU_PROJECT  the Google Cloud project
#   TPU_ZONE     a zone that has the type (https://cloud.google.com/tpu/docs/regions-zones)
#   TPU_BUCKET   gs://NAME, for the code and the results; in a region near the zone
#   TPU_TYPE     what to ask for: v5litepod-16, v5p-32, v6e-16, v4-32, ...
#   TPU_NAME     what to call it
#   TPU_SPOT     1 for spare capacity, which is cheap and may be taken away; 0 for none of that
#   TPU_RUNTIME  the image of the machines; by default the one for the type
#
# Speaks bash 3.2, which is what macOS has.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

: "${TPU_PROJECT:=}"
: "${TPU_ZONE:=}"
: "${TPU_BUCKET:=}"
: "${TPU_TYPE:=v5litepod-16}"
: "${TPU_NAME:=speccascade}"
: "${TPU_SPOT:=1}"
: "${TPU_RUNTIME:=}"

# Where the code is on every worker, and where it is on its way there.
REMOTE_DIR=speccascade
CODE_OBJECT=code/speccascade.tar.gz

DRY_RUN=0
ARGUMENTS=()

fail() {
  echo "error: $*" >&2
  exit 2
}

# Fails unless setting "$1" matches the whole regular expression "$2"; "$3" says what it must be.
check() {
  [[ ${!1} =~ ^($2)$ ]] || fail "$1='${!1}' must be $3; export it"
}

check_settings() {
  check TPU_PROJECT '[a-z]([-a-z0-9:.]*[a-z0-9])?' "the id of your Google Cloud project"
  check TPU_ZONE '[a-z]+-[a-z]+[0-9]+-[a-z]' "a zone such as us-central1-a"
  check TPU_BUCKET 'gs://[a-z0-9]([a-z0-9._-]*[a-z0-9])?' "gs://NAME, without a slash behind"
  check TPU_TYPE '(v5litepod|v5p|v6e|v4)-[0-9]+' "v5litepod-N, v5p-N, v6e-N or v4-N"
  check TPU_NAME '[a-z]([-a-z0-9]*[a-z0-9])?' "small letters, digits and hyphens"
  check TPU_SPOT '[01]' "0 or 1"
  if [ -z "$TPU_RUNTIME" ]; then
    case $TPU_TYPE in
      v5litepod-*) TPU_RUNTIME=v2-alpha-tpuv5-lite ;;
      v5p-*) TPU_RUNTIME=v2-alpha-tpuv5 ;;
      v6e-*) TPU_RUNTIME=v2-alpha-tpuv6e ;;
      v4-*) TPU_RUNTIME=tpu-ubuntu2204-base ;;
    esac
  fi
  if [ "$DRY_RUN" = 0 ]; then
    command -v gcloud >/dev/null ||
      fail "gcloud is not installed; see https://cloud.google.com/sdk/docs/install"
  fi
}

# Reads --help and --dry_run in front of the other arguments, which it leaves in ARGUMENTS, and
# checks the settings. "$1" is what --help shows, "$2" how many other arguments there may be.
start() {
  local usage=$1 most=$2
  shift 2
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help)
        printf '%s\n\nSettings, and where they come from, are at the top of scripts/tpu/common.sh.\n' \
          "$usage"
        exit
        ;;
      --dry_run) DRY_RUN=1 ;;
      --) shift && break ;;
      -*) fail "unknown flag '$1'; see --help" ;;
      *) break ;;
    esac
    shift
  done
  [ $# -le "$most" ] || fail "unexpected argument '${*:most+1:1}'; see --help"
  ARGUMENTS=("$@")
  check_settings
}

# Runs a command, or shows it in a form that a shell reads.
run() {
  if [ "$DRY_RUN" = 1 ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

# Runs `gcloud compute tpus "$@"` in the project and the zone.
tpus() {
  run gcloud compute tpus "$@" "--project=$TPU_PROJECT" "--zone=$TPU_ZONE"
}

# Runs the shell command "$2" on worker "$1", a number or "all".
on_workers() {
  tpus tpu-vm ssh "$TPU_NAME" "--worker=$1" "--command=$2"
}
