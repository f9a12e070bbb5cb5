"""The paper's configs, run whole: toy checkpoints of their architectures, a few local examples."""

import itertools
import os
import pathlib
import runpy
import subprocess
import sys

import pytest

from configs.paper import common as paper
from speccascade import rules
from speccascade.evaluate import evaluation, forecast, prepared
from speccascade.evaluate.jobs import QUALITY, TEACHER_FORCED, TIMING
from speccascade.report import report
from speccascade.tasks import sandbox
from speccascade.workdir import results
from tests.evaluate import paper_pairs

ROOT = pathlib.Path(__file__).parents[2]
FORMS = {
    "gemma2_2b_9b": "few_shot",
    "gemma2_2b_27b": "few_shot",
    "t5_small_large": "t5",
    "t5_small_xl": "t5",
}
LOSSLESS = rules.RULES["token_v3"].expert_at
RUNS = [(name, task) for name, form in FORMS.items() for task in paper.TASKS[form]]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The pair's source by form."""
    folder = tmp_path_factory.mktemp("pairs")
    return {
        "few_shot": paper_pairs.gemma2(folder / "gemma2"),
        "t5": paper_pairs.t5(folder / "t5"),
    }


@pytest.fixture
def config(made, tmp_path):
    """Returns the config of a pair and a task, over toy models and local examples."""

    def config(name, task):
        if task == "mbpp" and sandbox._trouble() is not None:
            pytest.skip(f"no isolation here: {sandbox._trouble()}")
        found = runpy.run_path(str(ROOT / f"configs/paper/{name}.py"))["get_config"](task)
        found.mesh = None
        found.pair = made[FORMS[name]]
        found.task.path = paper_pairs.rows(tmp_path / task, task)
        found.evaluate.splits = {"validation": 2, "test": 2}
        found.evaluate.timing.num_examples = 1
        return found

    return config


@pytest.mark.parametrize(("name", "task"), RUNS)
def test_dry(name, task, config, tmp_path):
    made = config(name, task)
    temperatures, lengths = {"few_shot": (3, 1), "t5": (4, 3)}[FORMS[name]]
    settings = len(made.evaluate.settings)
    # Two of autoregressive decoding, 4 of sequence and 5 of token cascades, 3 of BiLD; at every N
    # 31 of the rules over alpha and spec, and BiLD again; where something is drawn, 5 lossy ones
    # and 16 over top-k, top-p and min-p.
    sampled = temperatures - 1
    assert settings == temperatures * (14 + 34 * lengths) + sampled * 21 * lengths
    sweep = prepared.prepare(made)
    decoded = [job for job in sweep.jobs if job.kind != TEACHER_FORCED]
    assert len(decoded) == 2 * 2 * settings
    assert forecast.describe(sweep, str(tmp_path / "w")).startswith(f"{settings} settings on")
    assert not (tmp_path / "w").exists()


def settings(form):
    """The expert; token_v3 where it is the expert; token_v3 where it is not."""
    drafted = {"rule": "token_v3", "draft_length": {"few_shot": 1, "t5": 5}[form]}
    return (
        {"method": "autoregressive_expert"},
        {**drafted, **LOSSLESS},
        {**drafted, "alpha": 0.3},
    )


def check(workdir):
    """Asserts a whole sweep over `settings` and its table."""
    rows = results.read(workdir)
    kinds, splits = (QUALITY, TIMING), ("validation", "test")
    for kind, split in itertools.product(kinds, splits):
        alphas = [r["knobs"].get("alpha") for r in rows if (r["kind"], r["split"]) == (kind, split)]
        assert sorted(alphas, key=str) == sorted([None, 0.3, LOSSLESS["alpha"]], key=str)
    assert len(rows) == 18  # on the references too: the oracle and two rules
    # Greedy, lossless decoding writes what the expert writes.
    quality = {(r["split"], r["knobs"].get("alpha")): r for r in rows if r["kind"] == QUALITY}
    for split in splits:
        ours, experts = quality[split, LOSSLESS["alpha"]], quality[split, None]
        assert ours["scores"] == experts["scores"] and ours["tokens"] == experts["tokens"] > 0
    table, paths = report(workdir)
    assert "| token_v3 |" in table and all(pathlib.Path(path).exists() for path in paths)


QUICK = {("t5_small_large", "wmt14")}


@pytest.mark.parametrize(
    ("name", "task"),
    [pytest.param(*each, marks=() if each in QUICK else pytest.mark.slow) for each in RUNS],
)
def test_run(name, task, config, tmp_path):
    made = config(name, task)
    made.evaluate.settings = settings(FORMS[name])
    made.evaluate.max_new_tokens = 8
    outcome = evaluation.evaluate(made, str(tmp_path / "w"))
    assert outcome == evaluation.Outcome(measured=18, failed=[])
    check(tmp_path / "w")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), [("gemma2_2b_27b", "gsm8k"), ("t5_small_xl", "wmt14")])
def test_scripts(name, task, config, made, tmp_path):
    """From the command line: first what it costs, then the sweep, then the table."""
    path, workdir = config(name, task).task.path, str(tmp_path / "w")
    pair = made[FORMS[name]]
    command = [
        "scripts/evaluate.py",
        f"--config=configs/paper/{name}.py:{task}",
        f"--config.pair.drafter={pair['drafter']}",
        f"--config.pair.expert={pair['expert']}",
        f"--config.task.path={path}",
        "--config.mesh.model=1",
        f"--config.evaluate.settings={settings(FORMS[name])}",
        "--config.evaluate.splits.validation=2",
        "--config.evaluate.splits.test=2",
        "--config.evaluate.timing.num_examples=1",
        "--config.evaluate.max_new_tokens=8",
        f"--workdir={workdir}",
    ]

    def script(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    dry = script(*command, "--dry_run")
    assert "3 settings on" in dry and "estimated cost: about" in dry
    assert not pathlib.Path(workdir).exists()
    assert "18 rows measured" in script(*command)
    check(workdir)
    assert "| token_v3 |" in script("scripts/report.py", f"--workdir={workdir}")
