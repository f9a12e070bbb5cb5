#!/usr/bin/env bash
# Asks for a slice and waits until it is there: see usage below.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

start "usage: bash scripts/tpu/create.sh [--dry_run]

Asks for a slice of TPU_TYPE as a queued resource and waits until it is there, which may take from
minutes to days. Started again it goes on waiting; one that was taken away (preempted) or failed is
deleted and asked for anew." 0 "$@"

# Prints the state of the queued resource; nothing where there is none.
state() {
  gcloud compute tpus queued-resources describe "$TPU_NAME" "--project=$TPU_PROJECT" \
    "--zone=$TPU_ZONE" "--format=value(state.state)" 2>/dev/null || true
}

create() {
  local spot=()
  [ "$TPU_SPOT" = 0 ] || spot=(--spot)
  tpus queued-resources create "$TPU_NAME" "--node-id=$TPU_NAME" "--accelerator-type=$TPU_TYPE" \
    "--runtime-version=$TPU_RUNTIME" ${spot[@]+"${spot[@]}"}
}

if [ "$DRY_RUN" = 1 ]; then
  create
  tpus queued-resources describe "$TPU_NAME" "--format=value(state.state)"
  exit
fi

case $(state) in
  "") create ;;
  FAILED | SUSPENDING | SUSPENDED)
    bash scripts/tpu/delete.sh
    create
    ;;
esac
while true; do
  now=$(state)
  echo "$(date +%H:%M:%S) $TPU_NAME is ${now:-not there}"
  case $now in
    ACTIVE) exit ;;
    FAILED | SUSPENDING | SUSPENDED | "")
      fail "$TPU_NAME did not come; see gcloud compute tpus queued-resources describe $TPU_NAME"
      ;;
  esac
  sleep 30
done
