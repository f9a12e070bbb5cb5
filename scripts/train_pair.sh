#!/usr/bin/env bash
# Trains the expert and the drafter of a config, exports them as a pair, and trains its learned rule:
#
#   bash scripts/train_pair.sh configs/debian_en_de.py runs/en_de_pair [FLAGS OF export_pair.py]
#
# Started again after an interruption it goes on. The result, runs/en_de_pair/pair, is what
# --config.pair takes, and runs/en_de_pair/pair/head.json the head of the rule `learned`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

usage="usage: bash scripts/train_pair.sh CONFIG.py DIR [FLAGS OF export_pair.py]"
if [ "${1:-}" = --help ]; then
  echo "$usage"
  exit
fi
[ $# -ge 2 ] || fail "$usage"
config=$1 out=$2
shift 2
case $out in
*://*) fail "$out: an exported pair cannot be in a bucket; give a path on this machine" ;;
esac
python=${PYTHON:-python}

"$python" scripts/train.py --config="$config:expert" --workdir="$out/expert"
"$python" scripts/train.py --config="$config:drafter" --workdir="$out/drafter" \
  --config.train.distill_from="$out/expert"
"$python" scripts/export_pair.py --drafter="$out/drafter" --expert="$out/expert" \
  --output="$out/pair" --name="$(basename "$config" .py)" "$@"
"$python" scripts/learn_rule.py --config="$config" --config.pair="$out/pair" --unseen \
  --num_examples=768 --out="$out/pair/head.json"
