"""Metrics of a training run: JSON lines and TensorBoard events."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable

from etils import epath
from tensorboardX import SummaryWriter

from speccascade.inputs import paths, text_files
from speccascade.workdir import bucket
from speccascade.workdir.growing import Growing

FILE = "metrics.jsonl"


class MetricsWriter:
    """Appends scalars to `metrics.jsonl` and to TensorBoard files under `tb/`.

    A run that goes on from `step` first drops what an earlier process logged at later steps, so
    that the file reads as if the run had never stopped. TensorBoard's files for a bucket grow in a
    scratch directory and are copied there by `keep`.
    """

    def __init__(self, workdir: str, step: int, check: Callable[[], None] | None = None):
        """Opens both.

        Args:
          workdir: where they are.
          step: from which the run goes on.
          check: from `claim`; called before every change. None where nothing is claimed.
        """
        self._check = check or (lambda: None)
        path = os.path.join(workdir, FILE)
        rows, data = text_files.read_journal(path)
        self._lines = Growing(path, data, self._check)
        if any(row["step"] > step for row in rows):
            self._lines.replace(b"".join(_line(row) for row in rows if row["step"] <= step))
        self._held = contextlib.ExitStack()
        self._bucket, folder = None, os.path.join(workdir, "tb")
        if paths.is_bucket(workdir):
            self._bucket = epath.Path(folder)
            folder = self._held.enter_context(tempfile.TemporaryDirectory(prefix="tb_"))
        self._folder = folder
        self._events = SummaryWriter(folder, purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Logs the figures of a step."""
        self._lines.add(_line({"step": step, **values}))
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def keep(self) -> None:
        """Copies TensorBoard's files to a bucket, where there is one.

        Raises:
          UserError: they could not be written, or another process has taken the workdir over.
        """
        self._check()
        if self._bucket is not None:
            self._events.flush()
            self._bucket.mkdir(parents=True, exist_ok=True)
            for path in epath.Path(self._folder).iterdir():
                bucket.write(self._bucket / path.name, path.read_bytes())

    def close(self) -> None:
        """Ends both files."""
        self.keep()
        self._events.close()
        self._held.close()


def _line(row: dict[str, float]) -> bytes:
    return (json.dumps(row) + "\n").encode()


def read_metrics(path: str) -> list[dict[str, float]]:
    """The rows of a `metrics.jsonl`, without a last line that a kill cut short."""
    return text_files.read_journal(path)[0]
