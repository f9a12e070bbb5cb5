"""The progress bar of a sweep: in seconds as `cost` has them, so that the time left is sensible."""

import sys
from collections.abc import Sequence

import tqdm

from speccascade.evaluate import cost
from speccascade.evaluate.jobs import QUALITY, Job
from speccascade.inference.setting import Setting


class Progress:
    """Context of a bar over all jobs of a sweep; what really passes corrects the time left."""

    def __init__(
        self,
        jobs: Sequence[Job],
        speeds: cost.Speeds,
        batch_size: int,
        shown: bool,
        whole: Sequence[Job] | None = None,
    ):
        """Args are those of `cost.estimate`, and whether there is a bar at all."""
        self._speeds = speeds
        self._batch_size = batch_size
        self._answers = [0, cost.answers(cost.decoded(jobs))]
        self._compiled: set[tuple] = set()
        self._group: Sequence[Job] = ()
        self._answer_s = 0.0
        self._bar = tqdm.tqdm(
            total=cost.estimate(jobs, speeds, batch_size, whole).known_s,
            bar_format="{l_bar}{bar}| {elapsed} so far, {remaining} left{postfix}",
            smoothing=0.05,
            disable=not shown,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def starts(self, group: Sequence[Job]) -> None:
        """Notes which group of `cost.groups` is measured next."""
        self._group = group
        if not cost.decoded(group):
            self._bar.set_description(group[0].kind)
            return
        seconds = cost.decoding_seconds(group, self._speeds, self._batch_size)
        self._answer_s = seconds / cost.answers(group)
        label = f"{group[0].kind}, {group[0].setting.label}"
        self._bar.set_description(label, refresh=False)

    def answered(self, count: int) -> None:
        """Notes answers of the group."""
        if self._group[0].kind == QUALITY:
            self.compiled(self._group[0].setting)
        self._answers[0] += count
        done, total = self._answers
        self._bar.set_postfix_str(f"{done:,} of {total:,} answers", refresh=False)
        self._add(count * self._answer_s)

    def kept(self, count: int) -> None:
        """Notes answers of the group that an earlier start has measured: none is left to do."""
        self._answers[1] -= count
        self._bar.total = max(self._bar.n, self._bar.total - count * self._answer_s)

    def compiled(self, setting: Setting) -> None:
        """Notes that the program of a setting is there, which is the group's or the expert's."""
        kind = self._group[0].kind
        key = cost.program_key(kind, setting)
        if key not in self._compiled:
            self._compiled.add(key)
            self._add(cost.compile_seconds(kind, setting, self._speeds))

    def _add(self, seconds: float) -> None:
        # Not beyond the whole, of which tqdm would complain: sums round.
        self._bar.update(min(seconds, self._bar.total - self._bar.n))

    def write(self, line: str) -> None:
        """Prints a line above the bar, if there is one."""
        if not self._bar.disable:
            self._bar.write(line, file=sys.stderr)
