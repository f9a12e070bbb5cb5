"""Behind `scripts/export_vectors.py`: writes vectors, answers right and wrong, the checker."""

import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from speccascade.conformance import check
from speccascade.conformance.cases import Case, candidates, edges
from speccascade.conformance.expected import block_of, is_clear, outcome, target, uniforms
from speccascade.conformance.plain import MISTAKES, RIGHT, Verifier
from speccascade.inputs import paths
from speccascade.rules import RULES
from speccascade.verify import METHODS

EDGE_RULES = ("spec", "token_v3", "lenient")
_DIGITS = 9

Row = dict[str, Any]


class Vector(NamedTuple):
    """A case with its uniforms and what must come out, and the row that says so."""

    case: Case
    accept: np.ndarray
    token: float
    row: Row


def vectors(seed: int = 0) -> list[Vector]:
    """Makes all cases: two of every rule and the edges of some, for both verifiers."""
    found = []
    for verifier in METHODS:
        for rule in RULES:
            found += [_first(candidates(verifier, rule, which, seed)) for which in (0, 1)]
        for rule in EDGE_RULES:
            found += [one for case in edges(verifier, rule, seed) if (one := _vector(case))]
    return found


def _first(cases: Iterable[Case]) -> Vector:
    """Returns the first case that is clear, and whose target is neither model's unless it must."""
    for case in cases:
        pi = target(case)
        fixed = RULES[case.rule].knobs == {}
        other = min(abs(pi - table).max() for table in (case.q, case.p))
        if (fixed or other > 0.02) and is_clear(case, pi) and (found := _vector(case, pi)):
            return found
    raise AssertionError("candidates do not end")


def _vector(case: Case, pi: np.ndarray | None = None) -> Vector | None:
    pi = target(case) if pi is None else pi
    drawn = uniforms(case, pi)
    if drawn is None:
        return None
    found = outcome(case, pi, *drawn)
    row = {
        "case": case.name,
        "verifier": case.verifier,
        "rule": case.rule,
        "knobs": case.knobs,
        "drafted": case.drafted,
        "draft": case.draft.tolist(),
        **{name: getattr(case, name).tolist() for name in ("q", "p", "q1", "p1")},
        "accept": drawn[0].tolist(),
        "token": drawn[1],
        "out": _told(*found),
    }
    return Vector(case, *drawn, row)


def _told(target, num_accepted, next_token, law) -> Row:
    return {
        "target": np.round(target, _DIGITS).tolist(),
        "num_accepted": num_accepted,
        "next_token": next_token,
        "law": np.round(law, _DIGITS).tolist(),
    }


# ---- answers, right and wrong ----


def answer(vector: Vector, verifier: Verifier, pi: np.ndarray) -> Row:
    """Returns what a plain verifier answers to a case with a target [N + 1, V]."""
    block = block_of(verifier, vector.case, pi)
    kept, token = verifier.outcome(block, vector.accept, vector.token)
    told = _told(block.pi[: vector.case.drafted + 1], kept, token, verifier.law(block))
    return {"case": vector.case.name, **told}


def _swapped(case: Case) -> np.ndarray:
    return target(case, q=case.p, p=case.q, q1=case.p1, p1=case.q1)


# Mistakes in the rules: what is taken for the target.
RULE_MISTAKES: dict[str, Callable[[Case], np.ndarray]] = {
    "drafter and expert swapped": _swapped,
    "confidences of what is sampled from": lambda case: target(case, q1=case.q, p1=case.p),
    "the other sign of alpha": lambda case: (
        target(case, alpha=-case.knobs["alpha"]) if case.rule in ("opt", "optlog") else target(case)
    ),
}


def wrong_answers(made: list[Vector]) -> Iterator[tuple[str, list[Row]]]:
    """Yields each mistake with the answers of an engine that makes it."""
    known = {vector.case.name: target(vector.case) for vector in made}
    for name, wrong in MISTAKES.items():
        of = [v for v in made if wrong.method == v.case.verifier]
        yield name, [answer(v, wrong, known[v.case.name]) for v in of]
    for name, wrong_target in RULE_MISTAKES.items():
        yield name, [answer(v, RIGHT[v.case.verifier], wrong_target(v.case)) for v in made]


def write(directory: str, seed: int = 0) -> list[str]:
    """Writes the kit.

    Args:
      directory: where; made if it is not there.
      seed: of the cases.

    Returns:
      The paths that were written.
    """
    folder = pathlib.Path(paths.on_disk(directory, "the kit"))
    made = vectors(seed)
    (folder / "wrong").mkdir(parents=True, exist_ok=True)
    written = [
        _write(folder / "vectors.jsonl", [vector.row for vector in made]),
        _write(
            folder / "answers.jsonl",
            [{"case": vector.case.name, **vector.row["out"]} for vector in made],
        ),
    ]
    for name, rows in wrong_answers(made):
        written.append(_write(folder / "wrong" / f"{_file_name(name)}.jsonl", rows))
    written.append(shutil.copy(check.__file__, folder / "check.py"))
    return [os.fspath(path) for path in written]


def _file_name(name: str) -> str:
    return name.replace(" ", "_").replace("'", "")


def _write(path: pathlib.Path, rows: Iterable[Row]) -> pathlib.Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
