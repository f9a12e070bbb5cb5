"""Behind `scripts/export_vectors.py`: writes vectors, answers right and wrong, the checker."""

import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from speccascade.conformance import check
from speccascade.conformance.cases import Case, candidates, edges
from speccascade.conformance.expected import (
    CONTINUOUS,
    block_of,
    is_clear,
    outcome,
    target,
    uniforms,
)
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


def vectors(seed: int = 0, rules: Iterable[str] = tuple(RULES)) -> list[Vector]:
    """Makes the cases: two of each rule and the edges of some rules, for both verifiers."""
    found = []
    for verifier in METHODS:
        for rule in rules:
            found += [_first(cases, _tells) for cases in candidates(verifier, rule, seed)]
            if rule in EDGE_RULES:
                found += [_first(cases) for cases in edges(verifier, rule, seed)]
    return found


def _first(
    cases: Iterable[Case], wanted: Callable[[Case, np.ndarray], bool] = lambda case, pi: True
) -> Vector:
    """Returns the first case that is clear, and wanted for its target."""
    for case in cases:
        pi = target(case)
        if wanted(case, pi) and is_clear(case, pi) and (found := _vector(case, pi)):
            return found
    raise AssertionError("candidates do not end")


def _tells(case: Case, pi: np.ndarray) -> bool:
    """Returns whether a case tells a rule from either model, and its distributions from others."""
    others = [case.q, case.p] if RULES[case.rule].knobs else []
    if not np.array_equal(case.q, case.q1) and case.rule not in CONTINUOUS and others:
        others.append(_of_sampled(case))
    return all(abs(pi - other).max() > 0.02 for other in others)


def _vector(case: Case, pi: np.ndarray) -> Vector | None:
    """Returns a case with what must come out; None where no uniforms are clear."""
    drawn = uniforms(case, pi, list(_mistaken(case, pi).values()))
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


def _of_sampled(case: Case) -> np.ndarray:
    return target(case, q1=case.q, p1=case.p)


def _swapped(case: Case) -> np.ndarray:
    return target(case, q=case.p, p=case.q, q1=case.p1, p1=case.q1)


# Mistakes in the rules: what is taken for the target.
RULE_MISTAKES: dict[str, Callable[[Case], np.ndarray]] = {
    "drafter and expert swapped": _swapped,
    "confidences of what is sampled from": _of_sampled,
    "the other sign of alpha": lambda case: (
        target(case, alpha=-case.knobs["alpha"]) if case.rule in ("opt", "optlog") else target(case)
    ),
}


def _mistaken(case: Case, pi: np.ndarray) -> dict[str, tuple[Verifier, np.ndarray]]:
    """Returns each mistake that can be made in a case: a verifier, and what it takes for pi."""
    own = {name: (wrong, pi) for name, wrong in MISTAKES.items() if wrong.method == case.verifier}
    rules = {name: (RIGHT[case.verifier], of(case)) for name, of in RULE_MISTAKES.items()}
    return own | rules


def wrong_answers(made: list[Vector]) -> dict[str, list[Row]]:
    """Returns by mistake the answers of an engine that makes it."""
    found: dict[str, list[Row]] = {name: [] for name in (*MISTAKES, *RULE_MISTAKES)}
    for vector in made:
        for name, wrong in _mistaken(vector.case, target(vector.case)).items():
            found[name].append(answer(vector, *wrong))
    return found


def write(directory: str, seed: int = 0) -> list[str]:
    """Writes the kit.

    Args:
      directory: where; made if it is not there.
      seed: of the cases.

    Returns:
      The paths that were written.
    """
    folder = pathlib.Path(paths.on_disk(directory, "the kit"))
    (folder / "wrong").mkdir(parents=True, exist_ok=True)
    made = vectors(seed)
    written = [
        _write(folder / "vectors.jsonl", [vector.row for vector in made]),
        _write(
            folder / "answers.jsonl",
            [{"case": vector.case.name, **vector.row["out"]} for vector in made],
        ),
    ]
    for name, rows in wrong_answers(made).items():
        written.append(_write(folder / "wrong" / f"{_file_name(name)}.jsonl", rows))
    written.append(pathlib.Path(shutil.copy(check.__file__, folder / "check.py")))
    return [os.fspath(path) for path in written]


def _file_name(name: str) -> str:
    return name.replace(" ", "_").replace("'", "")


def _write(path: pathlib.Path, rows: Iterable[Row]) -> pathlib.Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
