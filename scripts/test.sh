#!/usr/bin/env bash
# Runs the tests: see usage below.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

usage="usage: bash scripts/test.sh [ARGUMENTS OF pytest]

Makes a virtual environment in .venv, installs the pinned requirements and runs the tests, without
the long proofs: those are bash scripts/test.sh -m slow. There is one process per core; -n 0 is for
a debugger. PYTHON=/path/to/python chooses the interpreter."

case ${1:-} in
  -h | --help) echo "$usage" && exit ;;
esac

setup_venv requirements.txt requirements-dev.txt
# Compiling keeps one core busy, hence a process per core; a file's tests share what they compile.
exec "$VENV/bin/python" -m pytest --numprocesses=auto --dist=loadfile "$@"
