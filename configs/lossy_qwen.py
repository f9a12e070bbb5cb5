"""Engines' greedy lossy modes on Qwen2.5-Coder, 0.5B for 1.5B-Instruct, or on any other two models:

    python scripts/evaluate.py --config=configs/lossy_qwen.py:DRAFTER,EXPERT --workdir=runs/lossy
    python scripts/report.py --workdir=runs/lossy --answers --left=spec --right=vllm_relaxed

DRAFTER and EXPERT are those of `qwen_pair.py`; the modes of thinking spans take a whole answer for
one. Seven minutes on two cores. docs/kernels.md has what came out: TensorRT-LLM's relaxation and
`token_v3` at 0.9 emit 4.4 tokens per expert call, and write one of 12 answers as the expert does.
"""

import pathlib
import runpy

import ml_collections

from speccascade.inference.sweep import product

_SAME = runpy.run_path(str(pathlib.Path(__file__).with_name("qwen_pair.py")))
# <|im_start|>, which every prompt has, and <|endoftext|>.
SPANS = {"begin": 151644, "end": 151643}
GREEDY = {"draft_length": 4, "temperature": 0.0}


def get_config(sources: str = _SAME["QWEN"]) -> ml_collections.ConfigDict:
    """`sources` is DRAFTER,EXPERT."""
    config = _SAME["get_config"](sources)
    relaxed = {"rule": "trtllm_relaxed", "delta": 0.6, "k": 10, **SPANS, **GREEDY}
    config.evaluate = {
        "settings": product(rule="spec", **GREEDY)
        + product(method=("kernel", "twin"), **relaxed)
        + product(method="kernel", rule="vllm_relaxed", ratio=0.2, k=3, **SPANS, **GREEDY)
        + product(method="kernel", rule="asd", budget=2.0, **GREEDY)
        + product(rule="token_v3", alpha=(0.3, 0.7, 0.9), **GREEDY),
        "splits": {"test": 12},
        "max_new_tokens": 48,
        "batch_size": 12,
        "timing": {"num_examples": 0, "trials": 1},
    }
    return config
