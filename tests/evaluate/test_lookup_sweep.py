"""Sweeps and traces in which no model drafts: beside a drafting model, and of an expert alone."""

import csv
import dataclasses
import pathlib

import pytest

from speccascade import pairs
from speccascade.errors import UserError
from speccascade.evaluate import evaluation, prepared
from speccascade.evaluate.jobs import QUALITY
from speccascade.inference import api
from speccascade.inference.reading import from_fields, setting
from speccascade.inference.sweep import product
from speccascade.report import report
from speccascade.trace.tracing import trace_prompt
from speccascade.workdir import results
from tests import tiny_pair

GREEDY = {"draft_length": 2, "temperature": 0.0}


def expert_alone(pair: pairs.Pair) -> pairs.Pair:
    return dataclasses.replace(
        pair, models={"expert": pair.expert}, params={"expert": pair.params["expert"]}
    )


def test_a_sweep_of_an_expert_alone(tmp_path):
    pairs.export(expert_alone(tiny_pair.make()), str(tmp_path / "pair"), {})
    config = tiny_pair.get_config(str(tmp_path / "pair"))
    config.evaluate.settings = (
        product(method="autoregressive_expert", temperature=0.0)
        + product(rule="spec", drafter="lookup", max_ngram=4, **GREEDY)
    )
    config.evaluate.splits = {"validation": 2, "test": 2}
    config.evaluate.timing = {"num_examples": 1, "trials": 1}
    workdir = str(tmp_path / "sweep")
    # Nothing is scored on references: the rules would need a drafter's distribution.
    assert evaluation.evaluate(config, workdir) == evaluation.Outcome(measured=2 * 2 * 2, failed=[])
    scores = {}
    for row in results.read(workdir):
        if row["kind"] == QUALITY and row["split"] == "test":
            assert row["drafter_calls"] == row.get("middle_calls", 0) == 0
            scores[from_fields(row).label] = row["scores"]
    assert scores["spec over lookup"] == scores["autoregressive_expert"]
    report(workdir)
    (table,) = pathlib.Path(workdir).rglob("table.csv")
    with open(table) as file:
        assert "spec over lookup" in {line["method"] for line in csv.DictReader(file)}
    config.evaluate.settings = product(rule="spec", **GREEDY)
    with pytest.raises(UserError, match="needs a model that drafts and pair tiny is an expert"):
        prepared.prepare(config)


def test_a_trace_over_a_lookup_is_what_is_generated():
    pair = expert_alone(tiny_pair.make())
    how = {"rule": "token_v3", "alpha": 0.4, "drafter": "lookup"}
    how |= {"draft_length": 3, "temperature": 1.0}
    (trace,) = trace_prompt(pair, tiny_pair.PROMPT, [setting(how)], max_new_tokens=12).traces
    (answer,) = api.generate_text(pair, [tiny_pair.PROMPT], max_new_tokens=12, **how)
    assert [token.id for token in trace.tokens] == answer.tokens
    assert trace.statistics.items() <= answer.statistics.items()
    assert {block.drafted for block in trace.blocks} == {0, 3}
    for block in trace.blocks:
        for token in (*block.tokens, *block.discarded):
            if token.drafted:
                assert token.q == 1
            elif block.drafted == 0:
                assert token.q is None and token.p == token.pi
                assert token.deferral in (1.0, None)
