"""A drafter that learns on what it writes itself, beside what its expert writes (GKD).

    python scripts/distill.py --config=configs/on_policy.py --workdir=runs/on_policy
    python scripts/distill.py --config=configs/on_policy.py:alone --workdir=runs/alone

The expert is the shipped one for word problems, the drafter its first layer. The second command
never asks the drafter, and takes as many steps on the expert's texts alone.

Two minutes of CPU time each; expected: acceptance 0.881 and 0.894 at temperature 1 on held-out
texts of the expert. What that says is in docs/training.md.
"""

import pathlib
import runpy

import ml_collections

from speccascade.errors import UserError


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """`arg` is "alone" to do without rounds."""
    if arg not in ("", "alone"):
        raise UserError(f"configs/on_policy.py knows the argument alone, not {arg!r}")
    whole = runpy.run_path(str(pathlib.Path(__file__).with_name("gsm_symbolic.py")))
    config = ml_collections.ConfigDict({"task": whole["get_config"]().task})
    config.task.update(train_size=2_000, validation_size=64, test_size=64)
    config.expert = {"source": "shipped:gsm_symbolic/expert", "dtype": "float32"}
    config.texts = {
        "seed": 0,
        "num_texts": 640,
        "prompts": "task",
        "chat": False,
        "prompt_slots": 64,
        "max_new_tokens": 40,
        "temperatures": (0.0, 1.0),
        "batch_size": 64,
    }
    config.drafter = {"layers": (0,), "head_size": None}
    config.train = {
        "seed": 0,
        "loss": "forward_kl",  # or reverse_kl, jensen_shannon, total_variation
        "num_steps": 400,
        "batch_size": 16,
        "validation_texts": 64,
        "optimizer": "adamw",
        "learning_rate": 2e-3,
        "warmup_steps": 20,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "log_every": 10,
        "eval_every": 100,
        "checkpoint_every": 100,
    }
    if not arg:
        # After every so many steps the drafter answers other prompts, and half of each batch is of
        # these answers until it is asked again.
        config.rounds = {"every": 100, "num_texts": 256, "share": 0.5}
    return config
