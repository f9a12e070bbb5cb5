"""Examples of a group in progress that are timed already, so that a kill loses one of them.

A group's rows are there only when all its examples are timed: up to nine settings in turn, three
times over, each of hundreds of answers. Until then they wait beside `results.jsonl`, in a file that
holds no finished group.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from speccascade.evaluate.jobs import Job
from speccascade.inference.setting import digest
from speccascade.sharding import hosts
from speccascade.workdir import results

FILE = "timing_parts.jsonl"


class Part(NamedTuple):
    """What was timed of one example.

    Attributes:
      ms: milliseconds by setting, the expert's own decoding first, and trial.
      tokens: of the answer, by setting.
      answers: see `decoding.answer_digest`, by setting.
      invalid: how many trials met logits that were not finite, by setting.
      first_ms: milliseconds of an answer of one token, by setting and trial; 0 where there is none.
    """

    ms: list[list[float]]
    tokens: list[int]
    answers: list[str]
    invalid: list[int]
    first_ms: list[list[float]]


class Parts:
    """The parts of one group."""

    def __init__(
        self, store: results.Results | None, group: Sequence[Job], key: Callable[[Job], str]
    ):
        """Takes the workdir's `FILE` on the first process, None on others, and a job's row key."""
        self._store = store
        self._keys = [key(job) for job in group]
        rows = hosts.from_first(self._rows)
        self.known = {row["example"]: self._part(row) for row in rows}

    def _rows(self) -> list[dict[str, Any]]:
        wanted = set(self._keys)
        rows = self._store.rows.values()
        # One of an older version lacks what was not timed then.
        return [r for r in rows if wanted <= set(r["jobs"]) and r.keys() >= set(Part._fields)]

    def _part(self, row: dict[str, Any]) -> Part:
        """Returns this group's settings of a row, whose group may have had more."""
        at = [0, *(1 + row["jobs"].index(key) for key in self._keys)]
        return Part(*([row[name][i] for i in at] for name in Part._fields))

    def keep(self, example: int, part: Part) -> None:
        """Writes a part; when this returns, it is there for the next start.

        Raises:
          UserError: it could not be written.
        """
        with hosts.agreed():
            if self._store is not None:
                key = f"{digest(self._keys)}/{example}"
                found = {"key": key, "example": example, "jobs": self._keys}
                self._store.append({**found, **part._asdict()})

    def clear(self) -> None:
        """Forgets the group's parts, once its rows are there.

        Raises:
          UserError: the file could not be changed.
        """
        with hosts.agreed():
            if self._store is not None:
                own = set(self._keys)
                rows = self._store.rows.values()
                self._store.drop([row["key"] for row in rows if own & set(row["jobs"])])
