"""Engines' lossy modes on a shipped pair, beside their twins and lossless rivals as fast.

    python scripts/lossy_modes.py --config=configs/lossy_modes.py --workdir=runs/lossy_modes

For the pair of another task: `--config=configs/lossy_modes.py:debian_en_de`. What is compared is
quality at equal tokens per expert call; nothing is timed. docs/kernels.md has the table.
"""

import pathlib
import runpy

import ml_collections

from speccascade.inference.sweep import product

# A token of every prompt, so that the modes of thinking spans take all of an answer for thinking.
BEGIN = {"gsm_symbolic": 200, "debian_en_de": 317, "debian_summaries": 84}
SIZE = 4
# The drafts of a block that ASD may keep, so that it has a twin: all of them.
MOST = float(SIZE)
SEEDS = (0,)  # of sampled answers
SAMPLED = {"draft_length": SIZE, "temperature": 1.0, "seed": SEEDS}
GREEDY = {"draft_length": SIZE, "temperature": 0.0}


def with_twin(**mode) -> tuple[dict, ...]:
    """A mode, its direct twin, and the twin without tokens behind blocks."""
    alone = {k: v for k, v in mode.items() if k != "draft_length"}
    twins = product(method="twin", **mode) + product(method="twin", **alone)
    return product(method="kernel", **mode) + twins


def sweep(task: str = "gsm_symbolic") -> tuple[dict, ...]:
    """Kernels at their engines' usual knobs, and what stands beside them whatever their speed."""
    spans = {"begin": BEGIN[task], "end": 0}
    alone = ("autoregressive_expert", "autoregressive_drafter")
    return (
        product(method=alone, temperature=0.0)
        + product(method=alone, temperature=1.0, seed=SEEDS)
        + product(rule="spec", **GREEDY)
        + with_twin(rule=("medusa_typical", "vllm_typical"), **SAMPLED)
        + with_twin(rule="sglang_threshold", threshold_single=0.3, **SAMPLED)
        + with_twin(rule="sglang_threshold", threshold_acc=0.5, **SAMPLED)
        + with_twin(rule="cactus", delta=(0.1, 0.5), **SAMPLED)
        + product(method="kernel", rule="fly", window=2, **SAMPLED)
        + product(method="kernel", rule="fly", window=2, **GREEDY)
        + with_twin(rule="trtllm_relaxed", delta=(0.2, 0.6), k=10, **spans, **GREEDY)
        + with_twin(rule="vllm_relaxed", ratio=(0.2, 0.5), k=3, **spans, **GREEDY)
        + product(method="kernel", rule="asd", budget=(2.0, 8.0), **GREEDY)
        + product(method="kernel", rule="asd", budget=8.0, most=MOST, **GREEDY)
        + product(method="twin", rule="asd", budget=8.0, most=MOST, **GREEDY)
    )


def rivals() -> tuple[dict, ...]:
    """Lossless decoding whose strength is set to a mode's tokens per expert call."""
    cut = {"name": "truncated expert (min-p)", "strength": ("expert_min_p", "drafter_min_p")}
    cut |= {"fields": product(rule="spec", **SAMPLED), "grid": (0.0, 0.05, 0.2, 0.4, 0.6, 0.9)}
    lossy = {"name": "lossy", "strength": ("alpha",)}
    lossy |= {"grid": (0.0, 0.3, 0.6, 0.8, 0.9, 0.97, 0.995)}
    token = {"name": "token_v3", "strength": ("alpha",)}
    token |= {"grid": (-0.01, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0)}
    return (
        cut,
        {**lossy, "fields": product(rule="lossy", **SAMPLED)},
        {**token, "fields": product(rule="token_v3", **SAMPLED)},
        {**token, "fields": product(rule="token_v3", **GREEDY)},
    )


def get_config(task: str = "gsm_symbolic") -> ml_collections.ConfigDict:
    """Returns the config for the shipped pair of a task."""
    whole = runpy.run_path(str(pathlib.Path(__file__).with_name(f"{task}.py")))
    config = ml_collections.ConfigDict({"task": whole["get_config"]().task})
    config.pair = f"shipped:{task}"
    config.evaluate = {
        "settings": sweep(task),
        "splits": {"validation": 96, "test": 160},
        "max_new_tokens": 64,
        "batch_size": 64,
        "timing": {"num_examples": 0, "trials": 1},
    }
    config.rivals = rivals()
    return config
