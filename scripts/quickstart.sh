#!/usr/bin/env bash
# From nothing but Python 3.11 or newer to the table: see usage below.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

usage="usage: bash scripts/quickstart.sh

Makes a virtual environment in .venv, installs the pinned requirements, evaluates a pair that
ships with the code in runs/quickstart and prints a small table and what it says. Started again,
it does only what is missing. PYTHON=/path/to/python chooses the interpreter."

case ${1:-} in
  -h | --help) echo "$usage" && exit ;;
  ?*) fail "unexpected argument '$1'; see --help" ;;
esac

setup_venv requirements.txt
"$VENV/bin/python" scripts/evaluate.py --config=configs/quickstart.py --workdir=runs/quickstart
"$VENV/bin/python" scripts/report.py --workdir=runs/quickstart --brief
echo "Further commands need its environment: source ${VENV#"$PWD"/}/bin/activate"
echo "scripts/report.py --html makes a page of it; docs/summaries.md has all settings of this pair."
