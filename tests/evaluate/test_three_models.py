"""A sweep over a pair of three models: two-model and three-model settings in the same tables."""

import csv
import pathlib

import pytest

from speccascade import pairs
from speccascade.errors import UserError
from speccascade.evaluate import evaluation, prepared
from speccascade.evaluate.jobs import QUALITY
from speccascade.inference.reading import from_fields
from speccascade.inference.sweep import product
from speccascade.report import report
from speccascade.workdir import results
from tests import tiny_pair


def sweep_of(pair: pairs.Pair, directory: pathlib.Path):
    """Returns a sweep over an exported pair: the expert, two models, three models."""
    pairs.export(pair, str(directory), {})
    config = tiny_pair.get_config(str(directory))
    two = {"rule": ("spec", "token_v3"), "draft_length": 2, "temperature": 0.0}
    over = {**two, "middle_rule": "token_v3", "middle_alpha": 0.3, "middle_draft_length": 1}
    spec, token = (
        ({**entry, "rule": "spec"}, {**entry, "rule": "token_v3", "alpha": 0.4})
        for entry in (two, over)
    )
    config.evaluate.settings = product(method="autoregressive_expert", temperature=0.0) + sum(
        (product(**entry) for entry in (*spec, *token)), ()
    )
    config.evaluate.splits = {"validation": 2, "test": 2}
    config.evaluate.timing = {"num_examples": 1, "trials": 1}
    return config


@pytest.mark.slow
def test_three_models_are_measured_in_the_same_tables(tmp_path):
    pair = tiny_pair.make(roles=tiny_pair.MIDDLE)
    workdir = str(tmp_path / "sweep")
    outcome = evaluation.evaluate(sweep_of(pair, tmp_path / "pair"), workdir)
    # Beside them the references: the oracle and the two rules of two models, on either split.
    assert outcome == evaluation.Outcome(measured=20 + 6, failed=[])
    rows = results.read(workdir)
    for row in rows:
        if row["kind"] == QUALITY:
            three = "middle_rule" in row
            assert (row.get("middle_calls", 0) > 0) == three
            assert row.get("middle_calls", 0) <= row["drafter_calls"]
    report(workdir)
    (table,) = pathlib.Path(workdir).rglob("table.csv")
    with open(table) as file:
        methods = {line["method"] for line in csv.DictReader(file)}
    assert {"spec", "token_v3", "spec over token_v3", "token_v3 over token_v3"} <= methods
    # Greedy, spec on the outside is the expert's own text: the same scores.
    scores = {}
    for row in rows:
        if row["kind"] == QUALITY and row["split"] == "test":
            scores[from_fields(row).label] = row["scores"]
    assert scores["spec over token_v3"] == scores["spec"] == scores["autoregressive_expert"]


def test_a_middle_rule_without_a_middle_model_is_refused_before_work(tmp_path):
    config = sweep_of(tiny_pair.make(), tmp_path / "pair")
    with pytest.raises(UserError, match="pair tiny has no middle model"):
        prepared.prepare(config)
