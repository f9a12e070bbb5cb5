#!/usr/bin/env bash
# Starts one command on all workers: see usage below.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

start "usage: bash scripts/tpu/run.sh [--dry_run] COMMAND [ARGUMENT ...]

Starts the command on all workers, in the code's folder and with its environment, and returns; it
goes on without this machine. Its output is in runs/run.log there: see logs.sh. While one runs, a
second is refused. After a preemption: create.sh, setup.sh, and the same command again." 1000 "$@"
[ ${#ARGUMENTS[@]} -gt 0 ] || fail "no command was given; see --help"

command=$(printf '%q ' "${ARGUMENTS[@]}")
task="export PATH=\"\$PWD/.venv/current/bin:\$PATH\"
$command
echo \"exit status \$?\""
on_workers all "set -euo pipefail
cd $REMOTE_DIR && mkdir -p runs
if [ -e runs/run.pid ] && kill -0 \"\$(cat runs/run.pid)\" 2>/dev/null; then
  echo \"error: a command is running on \$(hostname); wait for it, or end it there: pkill -P \$(cat runs/run.pid)\" >&2
  exit 2
fi
[ -e .venv/current ] || { echo \"error: run scripts/tpu/setup.sh first\" >&2; exit 2; }
nohup bash -c $(printf %q "$task") >runs/run.log 2>&1 </dev/null &
echo \$! >runs/run.pid"
