#!/usr/bin/env bash
# Puts the code and its environment on all workers: see usage below.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

start "usage: bash scripts/tpu/setup.sh [--dry_run]

Puts the last commit of this checkout on all workers, by way of the bucket, and a virtual environment
with requirements-cloud.txt beside it. Started again, it installs only what changed." 0 "$@"

archive=$(mktemp)
trap 'rm -f "$archive"' EXIT
run git archive --format=tar.gz "--output=$archive" HEAD
run gcloud storage cp "$archive" "$TPU_BUCKET/$CODE_OBJECT" "--project=$TPU_PROJECT"

# The images have Ubuntu's own Python, which may be older than 3.11.
on_workers all "set -euo pipefail
if ! command -v python3.12 >/dev/null; then
  sudo add-apt-repository -y ppa:deadsnakes/ppa >/dev/null
  sudo apt-get -o DPkg::Lock::Timeout=600 install -y -qq python3.12 python3.12-venv >/dev/null
fi
mkdir -p $REMOTE_DIR && cd $REMOTE_DIR
find . -mindepth 1 -maxdepth 1 ! -name .venv ! -name runs -exec rm -rf {} +
gcloud storage cat $TPU_BUCKET/$CODE_OBJECT | tar -xz
source scripts/setup.sh
PYTHON=python3.12 setup_venv requirements.txt requirements-tpu.txt requirements-tasks.txt requirements-cloud.txt
ln -sfn \"\$VENV\" .venv/current
echo \"\$(hostname) is ready\""
