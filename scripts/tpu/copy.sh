#!/usr/bin/env bash
# Copies results from the bucket: see usage below.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

start "usage: bash scripts/tpu/copy.sh [--dry_run] NAME

Copies TPU_BUCKET/runs/NAME to runs/NAME, where scripts/report.py makes tables of it. Started again,
it copies only what changed." 1 "$@"
name=${ARGUMENTS[0]:-}
[[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] ||
  fail "NAME='$name' must be that of a folder in $TPU_BUCKET/runs"

run mkdir -p "runs/$name"
run gcloud storage rsync --recursive "$TPU_BUCKET/runs/$name" "runs/$name" \
  "--project=$TPU_PROJECT"
