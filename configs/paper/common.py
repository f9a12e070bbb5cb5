"""The pairs of the paper's experiments: what their models are made of, and what configs share.

Sizes are those that the models' config.json files publish. A config that names them can be planned
(`scripts/tpu_plan.py`) without the weights. T5 is fine-tuned for each task there: a config's pair
then names workdirs or checkpoints of your own.
"""

from collections.abc import Sequence
from typing import Any

import ml_collections
from ml_collections import config_dict

from speccascade.errors import UserError
from speccascade.inference.sweep import product

_GEMMA2 = {
    "family": "decoder_only",
    "vocab_size": 256_000,
    "activation": "gelu",
    "post_norms": True,
    "query_pre_attn_scalar": 256,
    "window": 4096,
    "window_pattern": (True, False),
    "attn_softcap": 50.0,
    "logit_softcap": 30.0,
    "scale_embeddings": True,
    "norm_param_dtype": "float32",
}

_T5 = {  # v1.1
    "family": "encoder_decoder",
    "vocab_size": 32_128,
    "head_dim": 64,
    "activation": "gelu",
    "gated_mlp": True,
    "tie_embeddings": False,
}


def _gemma2(d_model, num_layers, num_heads, num_kv_heads, head_dim, d_ff, **others):
    return {
        **_GEMMA2,
        "d_model": d_model,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "num_kv_heads": num_kv_heads,
        "head_dim": head_dim,
        "d_ff": d_ff,
        **others,
    }


def _t5(d_model, layers, num_heads, d_ff):
    return {
        **_T5,
        "d_model": d_model,
        "num_layers": layers,
        "num_decoder_layers": layers,
        "num_heads": num_heads,
        "d_ff": d_ff,
    }


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "google/gemma-2-2b": _gemma2(2304, 26, 8, 4, 256, 9216),
    "google/gemma-2-9b": _gemma2(3584, 42, 16, 8, 256, 14_336),
    "google/gemma-2-27b": _gemma2(4608, 46, 32, 16, 128, 36_864, query_pre_attn_scalar=144),
    "google/t5-v1_1-small": _t5(512, 8, 6, 1024),
    "google/t5-v1_1-large": _t5(1024, 24, 16, 2816),
    "google/t5-v1_1-xl": _t5(2048, 24, 32, 5120),
}


# What stands in for T5's tasks where no such data is at hand: texts of Debian's packages.
LOCAL = ("debian_en_de", "debian_summaries")

TASKS = {
    "few_shot": (
        "wmt14 cnn_dailymail gsm8k mbpp squad web_questions natural_questions trivia_qa".split()
    ),
    "t5": "wmt14 xsum cnn_dailymail".split(),
}
"""The tasks of the paper's experiments: Gemma sees examples of them, T5 is tuned for each."""

_EXAMPLES = {
    "few_shot": {
        "gsm8k": {"validation": 400, "test": 500},  # a sixteenth of 7,473
        "mbpp": {"validation": 90, "test": 500},  # all that there are
        "web_questions": {"validation": 400, "test": 500},  # an eighth of 3,778
    },
    "t5": {
        "wmt14": {"validation": 3_000, "test": 3_000},
        "xsum": {"validation": 11_305, "test": 3_000},
        "cnn_dailymail": {"validation": 13_368, "test": 3_000},
        "debian_en_de": {"validation": 96, "test": 96},
        "debian_summaries": {"validation": 240, "test": 240},
    },
}


def examples(task: str, form: str) -> dict[str, int]:
    """Returns how many examples of each split a config of the paper's asks for.

    T5's validation splits are measured whole, as the paper is said to do; the full text was not at
    hand. What it takes of Gemma's tasks is not known: 500 here, where a split has them. The test
    split, which the paper does not use, is where what was chosen on the validation split is
    reported.

    Args:
      task: one of `TASKS[form]`, or of `LOCAL`.
      form: "few_shot" or "t5".
    """
    return dict(_EXAMPLES[form].get(task, {"validation": 500, "test": 500}))


def config(
    drafter: str,
    expert: str,
    task: str = "",
    *,
    form: str,
    settings: Sequence[dict[str, Any]],
    mesh: dict[str, int],
    draft_length: int,
    prompt_length: int,
    max_new_tokens: int,
    timed: int,
    dtype: str = "bfloat16",
) -> ml_collections.ConfigDict:
    """Returns a config of two of `ARCHITECTURES`.

    Args:
      drafter: its hub id.
      expert: its hub id.
      task: one of `TASKS[form]` to measure the pair on, or of `LOCAL` for T5, with ",quick" behind
        it for `quick` settings; empty to plan it only.
      form: how prompts are made, "few_shot" or "t5".
      settings: what is measured, of `sweep`.
      mesh: devices along each axis.
      draft_length: N of the plan.
      prompt_length: the most tokens of a prompt.
      max_new_tokens: room for an answer, tokens.
      timed: how many examples of each split are timed, three times each.
      dtype: of weights and activations.

    Raises:
      UserError: the task is none of the paper's for such a pair.
    """
    task, comma, grid = task.partition(",")
    known = (*TASKS[form], *(LOCAL if form == "t5" else ()))
    if task and task not in known:
        raise UserError(f"unknown task {task!r}; choose one of: {', '.join(known)}")
    if comma and grid != "quick":
        raise UserError(f"unknown grid {grid!r}; choose quick, or leave it out for the whole one")
    hub = {"drafter": drafter, "expert": expert}
    kinds = {"dtype": dtype, "param_dtype": dtype}
    made = ml_collections.ConfigDict(
        {
            "pair": {**hub, "prompt_length": prompt_length},
            "models": {role: {**ARCHITECTURES[name], **kinds} for role, name in hub.items()},
            "mesh": mesh,
            "plan": {
                "batch_size": 8,
                "prompt_length": prompt_length,
                "max_new_tokens": max_new_tokens,
                "setting": {"rule": "token_v3", "alpha": 0.3, "draft_length": draft_length},
            },
        }
    )
    if task:
        # The path is for `--config.task.path=DIR`; none reads the hub.
        path = "runs/debian" if task in LOCAL else config_dict.placeholder(str)
        made.task = {"name": task, "format": form, "path": path}
        made.evaluate = {
            "settings": quick(draft_length) if grid else settings,
            "splits": examples(task, form),
            "max_new_tokens": max_new_tokens,
            "batch_size": 8,
            "timing": {"num_examples": timed, "trials": 3},
        }
        if grid:
            made.evaluate.splits = {k: min(n, 500) for k, n in made.evaluate.splits.items()}
            made.evaluate.timing.num_examples = min(timed, 20)
        if form == "t5":
            made.fine_tuning = {role: fine_tuning(prompt_length, max_new_tokens) for role in hub}
    return made


def t5_sweep() -> tuple[dict[str, Any], ...]:
    """The paper's methods at its N and temperatures."""
    return sweep(draft_lengths=(3, 5, 7), temperatures=(0.0, 0.1, 0.5, 1.0))


def t5(expert: str, task: str) -> ml_collections.ConfigDict:
    """Returns the config of T5 small and another, for articles and sentences of up to 1,024 tokens.

    The paper, as its readers summarise it: N = 5, also 3 and 7, temperatures 0, 0.1, 0.5 and 1,
    whole validation splits, time on 500 examples, three trials, on TPU v4. The alphas and the test
    split are ours.
    """
    return config(
        "google/t5-v1_1-small",
        expert,
        task,
        form="t5",
        settings=t5_sweep(),
        mesh={"data": -1, "model": 4},
        draft_length=5,
        prompt_length=1024,
        max_new_tokens=128,
        timed=500,
    )


def gemma2_sweep() -> tuple[dict[str, Any], ...]:
    """The paper's methods at its N."""
    return sweep(draft_lengths=(1,), temperatures=(0.0, 0.5, 1.0))


def gemma2(expert: str, task: str) -> ml_collections.ConfigDict:
    """Returns the config of Gemma-2 2B and another, for few-shot prompts of up to 2,048 tokens.

    The paper, as its readers summarise it, has N = 1 and the rejection rate in place of time; its
    temperatures and numbers of examples are not known, those here are ours.
    """
    return config(
        "google/gemma-2-2b",
        expert,
        task,
        form="few_shot",
        settings=gemma2_sweep(),
        mesh={"data": -1, "model": 8},
        draft_length=1,
        prompt_length=2048,
        max_new_tokens=256,
        timed=20,
    )


def fine_tuning(prompt_length: int, max_new_tokens: int) -> dict[str, Any]:
    """Returns how a T5 is fine-tuned, for `scripts/paper.py`.

    Adafactor at a constant 1e-3 relative to each parameter, with dropout 0.1 and batches of 128
    rows, is how T5 is (Raffel et al. 2020); how long the paper does is not known.
    """
    return {
        "model": {"dtype": "bfloat16"},  # its form is that of the published one
        # Large models are cut, with data 1 and fsdp -1.
        "mesh": {"data": -1, "fsdp": 1, "model": 1},
        "train": {
            "seed": 0,
            "num_steps": 20_000,
            "batch_size": 128,
            "accumulate": 1,
            "remat": True,
            "row_length": prompt_length + max_new_tokens,
            "sort_by_length": True,
            "optimizer": "adafactor",
            "schedule": "constant",
            "learning_rate": 1e-3,
            "warmup_steps": 0,
            "weight_decay": 0.0,
            "clip_norm": 1.0,
            "prompt_weight": 0.0,
            "dropout": 0.1,
            "log_every": 100,
            "eval_every": 5_000,
            "checkpoint_every": 1_000,
            "init_from": "",
            "distill_from": "",
            "distill_loss": "forward_kl",
            "distill_weight": 0.5,
        },
    }


def quick(draft_length: int) -> tuple[dict[str, Any], ...]:
    """Returns the settings that answer the main question in less than a tenth of the time.

    Does a cascade at the expert's quality ask it less often than lossless decoding, and than the
    strongest rivals: lossy decoding, and lossless decoding of a truncated expert?
    """
    both = {"draft_length": draft_length, "temperature": (0.0, 1.0)}
    sampled = {"draft_length": draft_length, "temperature": 1.0}
    alone = ("autoregressive_expert", "autoregressive_drafter")
    return (
        product(method=alone, temperature=(0.0, 1.0))
        + product(rule="spec", **both)
        + product(rule="token_v3", alpha=(0.3, 0.7), **both)
        + product(rule="opt", alpha=0.0, **both)
        + product(rule="lossy", alpha=(0.3, 0.7), **sampled)
        + product(rule="spec", expert_top_p=0.5, **sampled)
    )


def sweep(
    draft_lengths: tuple[int, ...], temperatures: tuple[float, ...]
) -> tuple[dict[str, Any], ...]:
    """Returns the paper's methods, and some of them with either model truncated.

    Args:
      draft_lengths: every N at which each method that drafts is measured; BiLD at 10 too.
      temperatures: of all.
    """
    hot = {"temperature": temperatures}
    block = {"draft_length": draft_lengths, **hot}
    sampled = {**block, "temperature": tuple(t for t in temperatures if t)}
    shares = (0.1, 0.3, 0.5, 0.7, 0.9)
    return (
        product(method=("autoregressive_expert", "autoregressive_drafter"), **hot)
        + product(rule="spec", **block)
        + product(rule=("chow", "diff"), alpha=shares, **block)
        + product(rule="opt", alpha=(-0.5, 0.0, 0.25, 0.5, 1.0), **block)
        + product(rule=("token_v1", "token_v2", "token_v3"), alpha=shares, **block)
        + product(
            rule="bild",
            alpha=(2.0, 3.0, 5.0),
            fallback=0.6,
            draft_length=(*draft_lengths, 10),  # it ends a draft by itself
            **hot,
        )
        # At temperature 0 lossy is spec, and truncation changes nothing.
        + product(rule="lossy", alpha=shares, **sampled)
        + product(rule="spec", expert_top_k=(5, 50), **sampled)
        + product(rule="spec", expert_top_p=(0.5, 0.9), **sampled)
        + product(rule="spec", expert_min_p=(0.1, 0.5), **sampled)
        + product(rule="spec", drafter_top_p=(0.5, 0.9), **sampled)
        + product(rule=("token_v3", "lossy"), alpha=0.3, expert_top_p=(0.5, 0.9), **sampled)
        + product(rule=("token_v3", "lossy"), alpha=0.3, drafter_top_p=(0.5, 0.9), **sampled)
        + product(method="token_cascade", rule="chow", alpha=shares, **hot)
        + product(method="sequence_cascade", threshold=(-1.0, -0.5, -0.3, -0.1), **hot)
    )
