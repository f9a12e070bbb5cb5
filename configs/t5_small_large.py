"""T5 v1.1 small drafts for large: one of the paper's pairs, N = 5, fine-tuned per task there.

python scripts/tpu_plan.py --config=configs/t5_small_large.py --topology=v4:2x2x1
python scripts/evaluate.py --distributed --config=configs/t5_small_large.py:wmt14 --workdir=gs://BUCKET/runs/NAME
"""

import ml_collections

from speccascade import paper


def get_config(task: str = "") -> ml_collections.ConfigDict:
    """Articles and sentences of up to 1,024 tokens."""
    return paper.config(
        "google/t5-v1_1-small",
        "google/t5-v1_1-large",
        task,
        form="t5",
        mesh={"data": -1, "model": 4},
        draft_length=5,
        prompt_length=1024,
        max_new_tokens=128,
    )
