"""Gemma-2 2B drafts for 9B: one of the paper's pairs, N = 1.

python scripts/tpu_plan.py --config=configs/gemma2_2b_9b.py --topology=v5e:4x4
python scripts/evaluate.py --distributed --config=configs/gemma2_2b_9b.py:gsm8k --workdir=gs://BUCKET/runs/NAME
"""

import ml_collections

from speccascade import paper


def get_config(task: str = "") -> ml_collections.ConfigDict:
    """Few-shot prompts of up to 2,048 tokens."""
    return paper.config(
        "google/gemma-2-2b",
        "google/gemma-2-9b",
        task,
        form="few_shot",
        mesh={"data": -1, "model": 8},
        draft_length=1,
        prompt_length=2048,
        max_new_tokens=256,
    )
