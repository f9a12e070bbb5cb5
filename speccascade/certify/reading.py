"""Reads files of saved answers, and checks what can be wrong with them."""

import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from speccascade.certify.forms import HARNESS, Form, Row, Sample, form, harness_filter
from speccascade.errors import UserError
from speccascade.inputs import text_files

SHOWN = 5  # ids in a message


class Answers(NamedTuple):
    """The saved answers of one setting.

    Attributes:
      name: what tables call it.
      source: as it was given.
      samples: in the files' order.
    """

    name: str
    source: str
    samples: list[Sample]


def read(source: str, filter_name: str | None = None) -> Answers:
    """Reads the answers of a setting.

    Args:
      source: a file or, with commas between, several: other samples for the same prompts.
      filter_name: whose outcomes are read of a file of lm-evaluation-harness.

    Raises:
      UserError: a file is missing, damaged, cut short, of no known form, or has an answer twice.
    """
    files = [path for path in source.split(",") if path]
    if not files:
        raise UserError(f"{source!r} names no file")
    samples = []
    for i, path in enumerate(files):
        found = _file(path, filter_name)
        _check_once(path, found)
        samples += [dataclasses.replace(sample, draw=(i, sample.draw)) for sample in found]
    stems = [os.path.basename(path).removesuffix(".gz").removesuffix(".jsonl") for path in files]
    return Answers(", ".join(stems), source, samples)


def listed(ids: Sequence[str]) -> str:
    """Returns some ids for a message."""
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(ids[:SHOWN]) + more


def _file(path: str, filter_name: str | None) -> list[Sample]:
    rows: list[tuple[str, Row]] = [
        (f"{path} line {number}", row) for number, row in text_files.read_rows(path)
    ]
    if not rows:
        raise UserError(f"{path} has no answers")
    known = form(rows[0][1], rows[0][0])
    if known is HARNESS:
        rows = _filtered(path, rows, filter_name)
    return [sample for where, row in rows for sample in _samples(known, where, row)]


def _samples(known: Form, where: str, row: Row) -> list[Sample]:
    if missing := [field for field in known.fields if field not in row]:
        raise UserError(f"{where} lacks {', '.join(missing)}, which {known.name} have")
    try:
        return known.samples(where, row)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _filtered(path: str, rows: list[tuple[str, Row]], name: str | None) -> list[tuple[str, Row]]:
    """Returns the rows of one filter: a document has a row for each."""
    there = list(dict.fromkeys(harness_filter(row) for _, row in rows))
    if name is None and len(there) > 1:
        raise UserError(f"{path} has several filters; give --filter: {', '.join(there)}")
    name = there[0] if name is None else name
    if name not in there:
        raise UserError(f"{path} has no filter {name!r}; it has: {', '.join(there)}")
    return [(where, row) for where, row in rows if harness_filter(row) == name]


def _check_once(path: str, samples: Sequence[Sample]) -> None:
    counts = Counter((sample.id, str(sample.draw)) for sample in samples)
    double = list(dict.fromkeys(id for (id, _), count in counts.items() if count > 1))
    if double:
        raise UserError(
            f"{path} has {len(double)} ids twice: {listed(double)}; keep one answer of each or, of "
            "several samples for a prompt, number them in a field `sample`"
        )
