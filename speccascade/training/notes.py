"""What a workdir tells of its training, for whoever gets the model alone."""

import os
from typing import Any

from speccascade.training import checkpoints, metrics


def read(workdir: str) -> dict[str, Any]:
    """Returns a training workdir's config, its last step and its hours of training.

    An imported model's directory tells nothing of its training.
    """
    if not os.path.exists(os.path.join(workdir, "metrics.jsonl")):
        return {}
    config = checkpoints.read_json(os.path.join(workdir, "config.json"))
    if config["train"].get("distill_from"):  # where it lay says nothing to anybody else
        config["train"]["distill_from"] = os.path.basename(
            os.path.normpath(config["train"]["distill_from"])
        )
    step, seconds = 0, 0.0
    for row in metrics.read_metrics(os.path.join(workdir, "metrics.jsonl")):
        if "seconds_per_step" in row:
            seconds += (row["step"] - step) * row["seconds_per_step"]
            step = row["step"]
    return {"steps": step, "hours": round(seconds / 3600, 2), "config": config}
