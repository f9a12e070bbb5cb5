"""Metrics of a training run: JSON lines and TensorBoard events."""

import json
import os

from tensorboardX import SummaryWriter

from speccascade.inputs import text_files


class MetricsWriter:
    """Appends scalars to `metrics.jsonl` and to TensorBoard files under `tb/`.

    A run that goes on from `step` first drops what an earlier process logged at later steps, so
    that the file reads as if the run had never stopped.
    """

    def __init__(self, workdir: str, step: int):
        path = os.path.join(workdir, "metrics.jsonl")
        kept = [row for row in read_metrics(path) if row["step"] <= step]
        partial = path + ".partial"
        with open(partial, "w") as out:
            out.writelines(json.dumps(row) + "\n" for row in kept)
        os.replace(partial, path)
        self._lines = open(path, "a", buffering=1)
        self._events = SummaryWriter(os.path.join(workdir, "tb"), purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        self._lines.close()
        self._events.close()


def read_metrics(path: str) -> list[dict[str, float]]:
    """The rows of a `metrics.jsonl`, without a last line that a kill cut short."""
    return text_files.read_journal(path)[0]
