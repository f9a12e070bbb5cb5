#!/usr/bin/env bash
# Gives the slice back: see usage below.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

start "usage: bash scripts/tpu/delete.sh [--dry_run]

Deletes the slice and its request, without asking. What is in the bucket stays; what was only on the
workers is lost." 0 "$@"

tpus queued-resources delete "$TPU_NAME" --force --quiet
