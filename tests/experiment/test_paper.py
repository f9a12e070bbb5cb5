"""From published models to tables, in one command."""

import json
import pathlib
import runpy

import pytest

from speccascade import experiment
from speccascade.errors import UserError
from speccascade.inference.sweep import product
from speccascade.workdir import results
from tests.experiment import published_t5
from tests.training import fine_tuning

CONFIGS = pathlib.Path(__file__).parents[2] / "configs/paper"
WORDS = ["summarize: train validation test ab abab ababab abababab 0 1 2 3 4 5 6 7 8 9"] * 4


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return published_t5.write(tmp_path_factory.mktemp("published"), WORDS, 60, 64)


@pytest.fixture
def config(source, tmp_path):
    """The paper's own config, cut to seconds: what a user would set by flags."""
    made = runpy.run_path(str(CONFIGS / "t5_small_large.py"))["get_config"]("xsum,quick")
    made.pair.update(source)
    made.task = fine_tuning.task(tmp_path / "task")
    for role in ("expert", "drafter"):
        section = made.fine_tuning[role]
        section.mesh = {"data": 2, "fsdp": 4}
        section.train.update(num_steps=4, batch_size=8, row_length=64, remat=False)
        section.train.update(log_every=2, eval_every=4, checkpoint_every=2)
    made.fine_tuning.drafter.train.distill_from = "expert"
    made.mesh = {"data": 4, "model": 2}
    made.evaluate.settings = product(method="autoregressive_expert") + product(
        rule="token_v3", alpha=0.5, draft_length=2
    )
    made.evaluate.update(splits={"validation": 4, "test": 4}, max_new_tokens=4, batch_size=4)
    made.evaluate.timing = {"num_examples": 1, "trials": 1}
    return made


@pytest.mark.slow
def test_from_published_models_to_tables(config, tmp_path):
    workdir, said = tmp_path / "w", []
    told = experiment.describe(config, str(workdir))
    assert "step 0 of 4, 8 rows of at most 64 tokens" in told and not workdir.exists()
    assert "teacher 0.00; activations besides" in told  # the drafter's, who is not there yet
    assert "caches 0.00 of 4 rows, 1024 + 128 tokens each; temporaries" in told
    assert "2 settings on 4 examples of" in told and "waits for the expert and the dra" in told
    experiment.run(config, str(workdir), ["expert"], said.append)
    assert "waits for the drafter" in experiment.describe(config, str(workdir))
    experiment.run(config, str(workdir), say=said.append)
    assert [line.split(":")[0] for line in said[:5]] == [
        "== expert",
        "== expert",
        "== drafter",
        "== sweep",
        "== report",
    ]
    assert "| token_v3 |" in said[5] and (workdir / "sweep/report/report.md").exists()
    for role in ("expert", "drafter"):  # to the last step, the drafter from its expert
        lines = (workdir / role / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["step"] == 4
    rows = results.read(str(workdir / "sweep"))
    assert {row["pair"] for row in rows} and "4 of them there" not in told
    experiment.run(config, str(workdir), say=said.append)  # nothing is done twice
    assert results.read(str(workdir / "sweep")) == rows
    assert "nothing is left to decode" in experiment.describe(config, str(workdir))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.fine_tuning.drafter.train.update(batch_size=6), "train.batch_size=6 must be"),
        (lambda c: c.fine_tuning.drafter.train.update(optimizer="sgd"), "unknown train.optimizer"),
        (lambda c: c.evaluate.update(batch_size=0), "evaluate.batch_size=0 must be at least 1"),
        (lambda c: c.evaluate.update(settings=[{"rule": "x"}]), "setting rule=x"),
        (lambda c: c.fine_tuning.expert.__delattr__("train"), "lacks fine_tuning.expert.train"),
        (
            lambda c: c.fine_tuning.expert.train.update(distill_from="expert"),
            "names itself; leave it empty",
        ),
        (lambda c: (pathlib.Path(c.task.path) / "train.jsonl").unlink(), "train"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_is_trained(config, tmp_path, change, message):
    change(config)
    with pytest.raises(UserError, match=message):
        experiment.run(config, str(tmp_path / "w"))
    assert not (tmp_path / "w").exists()


def test_an_unknown_stage(config, tmp_path):
    with pytest.raises(UserError, match="unknown stage 'tune'; choose from: expert, drafter"):
        experiment.run(config, str(tmp_path / "w"), ["tune"])
