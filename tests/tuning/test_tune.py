"""A whole run on a tiny pair: what is measured, what is written, what is refused."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from speccascade import pairs
from speccascade.errors import UserError
from speccascade.evaluate import prepared
from speccascade.inference import methods
from speccascade.inference.reading import from_fields
from speccascade.inference.setting import Setting
from speccascade.tuning import tuner
from speccascade.workdir import results
from tests import called, tiny_pair

ROOT = pathlib.Path(__file__).parents[2]
EXPERT = Setting(methods.EXPERT)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("pair"))
    pairs.export(tiny_pair.make(), directory, {})
    return directory


def config(exported, **changes):
    made = tiny_pair.get_config(exported)
    made.update_from_flattened_dict(changes)
    return made


@pytest.fixture(scope="module")
def tuned(exported, tmp_path_factory):
    workdir = str(tmp_path_factory.mktemp("tuned"))
    return workdir, tuner.tune(config(exported), workdir, max_quality_loss=0.95, temperature=0.0)


def measured(workdir, split):
    return {from_fields(r) for r in results.read(workdir) if r["split"] == split}


def test_only_what_the_promise_needs_is_measured_on_test(tuned):
    workdir, outcome = tuned
    assert outcome.failed == []
    assert {s.label for s in measured(workdir, "validation")} == {
        "autoregressive_expert",
        "autoregressive_drafter",
        "token_v3",
    }
    record = json.loads((pathlib.Path(workdir) / "tune.json").read_text())
    chosen = from_fields(record["chosen"])
    assert measured(workdir, "test") == {EXPERT, chosen}
    assert {s.temperature for s in measured(workdir, "validation")} == {0.0}
    # Neither model of this pair is ever right: nothing is lost, and nobody promised more.
    assert record["test"]["chosen"]["quality_loss"] == 0 and record["kept_on_test"] is True
    assert (pathlib.Path(workdir) / "tune.md").read_text() == outcome.text
    assert "The promise held." in outcome.text


def test_started_again_nothing_is_measured_and_the_same_is_said(exported, tuned):
    workdir, outcome = tuned
    before = results.read(workdir)
    again = tuner.tune(config(exported), workdir, max_quality_loss=0.95, temperature=0.0)
    assert again == outcome and results.read(workdir) == before


def test_rows_serve_other_promises_and_an_evaluation(exported, tuned):
    workdir, _ = tuned
    before = len(results.read(workdir))
    text = tuner.tune(config(exported), workdir, min_speedup=1e4, temperature=0.0).text
    assert "Nothing was certified, nothing is promised. Chosen: `autoregressive_expert" in text
    assert len(results.read(workdir)) <= before + 2
    sweep = prepared.prepare(config(exported))
    left = prepared.missing(sweep, {row["key"]: row for row in results.read(workdir)})
    assert len(left) == len(sweep.jobs) - len(results.read(workdir))


def test_the_fastest_is_told_by_batch_size(exported, tuned):
    workdir, _ = tuned
    before = results.read(workdir)
    asked = {"max_quality_loss": 0.95, "temperature": 0.0}
    text = tuner.tune(config(exported), workdir, **asked, batch_sizes=["1", "3"]).text
    assert results.read(workdir) == before
    record = json.loads((pathlib.Path(workdir) / "tune.json").read_text())
    assert list(record["batch_sizes"]) == ["1", "3"]
    for batch, found in record["batch_sizes"].items():
        chosen = from_fields(found["setting"])
        assert found["speedup"] >= 1 and (found["speedup"] == 1 or chosen.method.in_blocks)
        assert f"| {batch} | {chosen} | {found['speedup']:.2f} |" in text


@pytest.mark.parametrize("role", ["drafter", "expert"])
def test_what_fails_is_no_candidate_and_is_named(exported, tmp_path, role):
    pair = pairs.load(exported)
    broken = {**pair.params, role: jax.tree.map(lambda x: x * np.nan, pair.params[role])}
    pairs.export(dataclasses.replace(pair, params=broken), tmp_path / "pair", {})
    made = config(str(tmp_path / "pair"))
    made.evaluate.settings = (
        {"rule": "token_v3", "alpha": 0.2, "draft_length": 2},
        {"method": "autoregressive_expert"},
    )
    if role == "expert":
        with pytest.raises(UserError, match="the expert's own decoding failed, and with it every"):
            tuner.tune(made, str(tmp_path / "w"), max_quality_loss=0.5)
        return
    outcome = tuner.tune(made, str(tmp_path / "w"), max_quality_loss=0.5)
    assert len(outcome.failed) == 2 and all("token_v3" in line for line in outcome.failed)
    assert "Chosen: `autoregressive_expert" in outcome.text and outcome.failed[0] in outcome.text


@pytest.mark.parametrize(
    ("given", "changes", "message"),
    [
        ({}, {}, "give one of --max_quality_loss and --min_speedup"),
        ({"max_quality_loss": 0.1, "min_speedup": 1.5}, {}, "give one of --max_quality_loss"),
        ({"min_speedup": 2.0, "batch_sizes": [2]}, {}, "--batch_sizes needs --max_quality_loss"),
        ({"max_quality_loss": 0.1, "batch_sizes": ["x"]}, {}, "--batch_sizes='x' must be a whole"),
        (
            {"max_quality_loss": 0.1, "batch_sizes": [2, 10**11]},
            {},
            "--batch_sizes=100000000000 needs more than .* GiB free; give smaller ones",
        ),
        ({"max_quality_loss": 1.0}, {}, "must be at least 0 and below 1, the score of a perfect"),
        ({"min_speedup": -1.0}, {}, "--min_speedup=-1 must be a positive number"),
        ({"min_speedup": 2.0, "confidence": 95.0}, {}, "--confidence=95 must be between 0 and 1"),
        ({"min_speedup": 2.0, "temperature": None}, {}, "give --temperature one of .*: 0, 1"),
        ({"min_speedup": 2.0, "temperature": 0.5}, {}, "give --temperature one of .*: 0, 1"),
        ({"min_speedup": 2.0}, {"evaluate.timing.num_examples": 1}, "give it at least 2"),
        (
            {"min_speedup": 2.0},
            {"evaluate.splits": {"test": 4}},
            "evaluate.splits lacks validation",
        ),
        (
            {"min_speedup": 2.0},
            {"evaluate.settings": ({"rule": "spec", "draft_length": 2},)},
            "lacks the expert's own decoding at temperature 0; add .*autoregressive_expert",
        ),
    ],
)
def test_bad_input_is_refused_before_any_work(exported, tmp_path, given, changes, message):
    made = config(exported)
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        part = made
        for step in section.split("."):
            part = part[step]
        with part.unlocked():
            del part[name]
            part[name] = value
    with pytest.raises(UserError, match=message):
        tuner.tune(made, str(tmp_path / "w"), **{"temperature": 0.0, **given})
    assert not (tmp_path / "w").exists()


def test_script(exported, tuned):
    workdir, _ = tuned
    common = (f"--config={ROOT}/tests/tiny_pair.py:{exported}", f"--workdir={workdir}")
    dry = subprocess.run(
        [sys.executable, "scripts/tune.py", *common, "--temperature=0", "--dry_run"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert dry.returncode == 0, dry.stderr
    assert "4 settings on validation: 8 rows" in dry.stdout and "quality: 0 rows" in dry.stdout
    assert "then, on test" in dry.stdout
    with pytest.raises(UserError, match="below 1"):
        called.call("scripts/tune.py", *common, "--temperature=0", "--max_quality_loss=2")
