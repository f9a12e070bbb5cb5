"""Engines' lossy modes on a shipped pair, beside rules and the truncated expert, both lossless.

    python scripts/evaluate.py --config=configs/lossy_modes.py --workdir=runs/lossy_modes
    python scripts/lossy_modes.py --workdir=runs/lossy_modes

For the pair of another task: `--config=configs/lossy_modes.py:debian_en_de`. What is compared is
quality at equal tokens per expert call; nothing is timed. docs/kernels.md has the table.
"""

import pathlib
import runpy

import ml_collections

from speccascade.inference.sweep import product

# A token of every prompt, so that TensorRT-LLM's mode takes all of an answer for thinking.
BEGIN = {"gsm_symbolic": 200, "debian_en_de": 317, "debian_summaries": 84}


def sweep(task: str = "gsm_symbolic") -> tuple[dict, ...]:
    """Kernels at their engines' usual knobs, and their rivals at several strengths."""
    warm, cold = {"temperature": 1.0}, {"temperature": 0.0}
    drafted = {"draft_length": 4}
    kernel = {"method": "kernel", **drafted}
    spans = {"k": 10, "begin": BEGIN[task], "end": 0}
    cut = product(rule="spec", expert_min_p=(0.05, 0.1, 0.3, 0.6, 0.9), **drafted, **warm)
    return (
        product(
            method=("autoregressive_expert", "autoregressive_drafter"), temperature=(0.0, 1.0)
        )
        + product(rule="spec", **drafted, temperature=(0.0, 1.0))
        + product(rule=("medusa_typical", "vllm_typical"), **kernel, **warm)
        + product(rule="sglang_threshold", threshold_single=0.3, **kernel, **warm)
        + product(rule="sglang_threshold", threshold_acc=0.5, **kernel, **warm)
        + product(rule="cactus", delta=(0.1, 0.5), **kernel, **warm)
        + product(rule="fly", window=2, **kernel, temperature=(0.0, 1.0))
        + product(rule="trtllm_relaxed", delta=(0.2, 0.6), **spans, **kernel, **cold)
        + product(rule="asd", budget=(2.0, 8.0), **kernel, **cold)
        + tuple({**each, "drafter_min_p": each["expert_min_p"]} for each in cut)
        + product(rule="lossy", alpha=(0.3, 0.6, 0.9), **drafted, **warm)
        + product(rule="token_v3", alpha=(0.1, 0.2, 0.4, 0.6, 0.8), **drafted, **cold)
        + product(rule="token_v3", alpha=(0.3, 0.6, 0.9), **drafted, **warm)
    )


def get_config(task: str = "gsm_symbolic") -> ml_collections.ConfigDict:
    """Returns the config for the shipped pair of a task."""
    whole = runpy.run_path(str(pathlib.Path(__file__).with_name(f"{task}.py")))
    config = ml_collections.ConfigDict({"task": whole["get_config"]().task})
    config.pair = f"shipped:{task}"
    config.evaluate = {
        "settings": sweep(task),
        "splits": {"validation": 8, "test": 48},
        "max_new_tokens": 64,
        "batch_size": 56,
        "timing": {"num_examples": 0, "trials": 1},
    }
    return config
