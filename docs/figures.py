"""Draws figures of the result pages anew, from the tables in `docs/data`.

    python docs/figures.py

Grids take long to measure; colours and marks are those of `speccascade/report/style.py` today.
"""

import csv
import pathlib
from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from speccascade.inference.methods import ORACLE
from speccascade.inference.reading import setting
from speccascade.inference.setting import Setting
from speccascade.report import references, tradeoffs
from speccascade.report.points import Forced, Points

HERE = pathlib.Path(__file__).parent
HEADS = {
    "en_de": "shipped:debian_en_de",
    "gsm_symbolic": "shipped:gsm_symbolic",
    "summaries": "shipped:debian_summaries",
}
N = 5  # of every table


class Printed(NamedTuple):
    """A point as a table has it, rounded; see `report.points.Point`."""

    setting: Setting
    quality: float
    interval: tuple[float, float]
    speedup: float | None
    rates: dict[str, float | None]


def draw(pair: str) -> None:
    by_setting = {(p.setting, "test"): p for p in read(pair)}
    points: Any = SimpleNamespace(by_setting=by_setting)
    for name in ("quality_rejection", "quality_latency", "quality_calls"):
        path = HERE / f"{pair}_{name}.png"
        if path.exists():
            getattr(tradeoffs, name)(points, "test", str(path))
    forced = Points({}, {}, (), tuple(read_references(pair)), frozenset())
    references.quality_deferral(forced, "test", str(HERE / f"{pair}_references_deferral.png"))


def read(pair: str) -> Iterator[Printed]:
    """Yields the points of docs/data/PAIR_every_setting.csv."""
    with open(HERE / f"data/{pair}_every_setting.csv", newline="") as file:
        rows = list(csv.reader(file))
    for name, *cells in rows[1:]:
        for temperature, of in ((0.0, cells[:4]), (1.0, cells[4:])):
            quality, speedup, calls, rejected = of
            if quality == "–":
                continue
            mean, low, high = map(float, quality.replace(",", " ").replace("[", "")[:-1].split())
            yield Printed(
                setting({**_entry(name, HEADS[pair]), "temperature": temperature}),
                mean,
                (low, high),
                _number(speedup),
                {"tokens_per_expert_call": _number(calls), "rejection_rate": _number(rejected)},
            )


def read_references(pair: str) -> Iterator[Forced]:
    """Yields what docs/data/PAIR_references.csv has of the test split."""
    lines = defaultdict(list)
    with open(HERE / f"data/{pair}_references.csv", newline="") as file:
        for row in csv.DictReader(file):
            lines[row["method"], row["chosen"], row["temperature"]].append(row)
    for (method, chosen, temperature), rows in lines.items():
        at = {"temperature": float(temperature)}
        if method == ORACLE.name:
            told = Setting(ORACLE, **at)
        else:
            chosen = chosen.split(" head=")[0]
            label, _, limits = method.partition(", expert ")
            fields = _entry(f"{label}, {'expert ' if limits else ''}{chosen}", HEADS[pair])
            told = setting({**fields, **at})

        def numbers(*names, rows=rows):
            return np.array([[float(row[name] or "nan") for name in names] for row in rows])

        yield Forced(
            told,
            "test",
            numbers("deferral_rate")[:, 0],
            numbers("quality")[:, 0],
            numbers("quality_low", "quality_high"),
            None,
        )


def _number(cell: str) -> float | None:
    return None if cell == "–" else float(cell.split()[0])


def _entry(name: str, head: str) -> dict[str, Any]:
    """Returns a setting's fields, of a name such as "spec, expert top_p=0.3"."""
    label, *choices = name.split(", ")
    method, *rule = label.split()
    entry: dict[str, Any] = {"method": method}
    if rule:
        entry["rule"] = rule[0]
    elif "cascade" not in method and "autoregressive" not in method:
        entry = {"rule": method, "draft_length": N}
        if method == "learned":
            entry["head"] = head
    for choice in choices:
        if choice == "block verifier":
            entry["verifier"] = "block"
            continue
        prefix = choice.removeprefix("expert ") != choice
        for word in choice.removeprefix("expert ").split():
            key, _, value = word.partition("=")
            if key == "N":
                entry["draft_length"] = int(value)
            elif key in ("top_k", "k"):
                entry["expert_top_k" if prefix else key] = int(value)
            else:
                entry[f"expert_{key}" if prefix else key] = float(value)
    return entry


if __name__ == "__main__":
    for pair in HEADS:
        draw(pair)
