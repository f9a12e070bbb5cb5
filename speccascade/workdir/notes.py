"""What a workdir tells of its training, for whoever gets the model alone."""

import os
from typing import Any

from etils import epath

from speccascade.workdir import files
from speccascade.workdir import training_metrics as metrics


def read(workdir: str) -> dict[str, Any]:
    """Returns a training workdir's config, its last step and its hours of training.

    An imported model's directory tells nothing of its training.
    """
    logged = os.path.join(workdir, metrics.FILE)
    if not epath.Path(logged).exists():
        return {}
    config = files.read_json(os.path.join(workdir, "config.json"))
    for name in ("init_from", "distill_from"):
        source = config["train"].get(name)
        if source and not source.startswith("shipped:"):  # where it lay is nobody else's affair
            config["train"][name] = os.path.basename(os.path.normpath(source))
    step: float = 0
    seconds = 0.0
    for row in metrics.read_metrics(logged):
        if "seconds_per_step" in row:
            seconds += (row["step"] - step) * row["seconds_per_step"]
            step = row["step"]
    return {"steps": step, "hours": round(seconds / 3600, 2), "config": config}
