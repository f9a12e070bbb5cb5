"""Qwen2.5-Coder 0.5B drafts for 1.5B-Instruct, or any other two models, for the benchmark:

    python scripts/benchmark.py --config=configs/qwen_pair.py:DRAFTER,EXPERT
    python scripts/benchmark.py --config=configs/qwen_pair.py:DRAFTER,EXPERT --peer=transformers \
        --native --config.pair.drafter_weights=int8

DRAFTER and EXPERT are Hugging Face directories, hub ids or whatever else a model may come from; of
one vocabulary, the expert a chat model. On two cores, at 3 to 5 tokens/s, either takes about ten
minutes, of which the first run compiles for some; it decodes as many prompts and tokens as that
allows.
"""

import ml_collections

from speccascade.errors import UserError
from speccascade.inference.sweep import product

QWEN = "Qwen/Qwen2.5-Coder-0.5B-Instruct,Qwen/Qwen2.5-Coder-1.5B-Instruct"


def get_config(sources: str = QWEN) -> ml_collections.ConfigDict:
    """`sources` is DRAFTER,EXPERT; by default they come from the Hugging Face hub."""
    drafter, comma, expert = sources.partition(",")
    if not comma or not drafter or not expert:
        raise UserError(f"{sources!r} must be DRAFTER,EXPERT")
    config = ml_collections.ConfigDict()
    config.task = {"name": "questions", "path": "configs/code_questions.jsonl"}
    config.pair = {"drafter": drafter, "expert": expert, "dtype": "bfloat16", "chat": True}
    config.benchmark = {
        "settings": product(rule="spec", draft_length=(4, 6, 8))
        + product(rule="spec", draft_length=4, drafter="lookup")
        + product(rule="token_v3", alpha=0.7, draft_length=6),
        "batch_sizes": (1,),
        "num_examples": 4,
        "max_new_tokens": 64,
        "step_tokens": (1, 2, 3, 5),
        "step_repeats": 4,
        "trials": 3,
        "minutes": 10,
    }
    return config
