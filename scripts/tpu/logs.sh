#!/usr/bin/env bash
# Follows what run.sh's command prints: see usage below.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

start "usage: bash scripts/tpu/logs.sh [--dry_run] [WORKER]

Follows the output of run.sh's command on a worker, 0 if none is given, until interrupted. Its last
line is the exit status." 1 "$@"
worker=${ARGUMENTS[0]:-0}
[[ $worker =~ ^[0-9]+$ ]] || fail "worker '$worker' must be a number, from 0 on"

on_workers "$worker" "tail -n 100 -F $REMOTE_DIR/runs/run.log"
