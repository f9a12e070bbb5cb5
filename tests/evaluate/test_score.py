import json
import pathlib
import subprocess
import sys

import pytest

from speccascade import pairs, tasks
from speccascade.errors import UserError
from speccascade.evaluate import evaluation, origin, score
from speccascade.evaluate.jobs import QUALITY
from speccascade.tasks.gsm_symbolic import GsmSymbolic
from speccascade.workdir import answers, results
from tests import called, tiny_pair


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("pair"))
    pairs.export(tiny_pair.make(), directory, {})
    config = tiny_pair.get_config(directory)
    config.evaluate.settings = (
        {"method": "autoregressive_expert"},
        {"method": "autoregressive_drafter", "temperature": 1.0},
    )
    config.evaluate.timing.num_examples = 0
    return config


@pytest.fixture
def workdir(config, tmp_path):
    assert evaluation.evaluate(config, str(tmp_path)).measured == 4
    return str(tmp_path)


def qualities(directory):
    rows = results.read(directory)
    return {row["answers"]: row for row in rows if row["kind"] == QUALITY}


def test_answers_are_scored_by_the_task_as_it_is_now(config, workdir, monkeypatch):
    before, count = qualities(workdir), len(results.read(workdir))
    made = score.score(workdir)
    assert made.rows == 4 and made.changed == made.left == [] and qualities(workdir) == before
    # A metric that was mended: an answer is worth its length.
    monkeypatch.setattr(GsmSymbolic, "score", lambda self, text, example: float(len(text)))
    monkeypatch.setattr(origin, "SCORING", origin.SCORING + 1)
    made = score.score(workdir)
    assert made.rows == len(made.changed) == 4 and not made.left
    assert str(made).startswith("4 of 4 rows scored anew, 4 changed\nautoregressive_expert T=0 on")
    task = tasks.make(config.task)
    assert len(results.read(workdir)) == count
    for name, row in qualities(workdir).items():
        texts = {a["id"]: a["text"] for a in answers.read(workdir, name)}
        examples = task.examples(row["split"], row["num_examples"])
        assert row["scores"] == [len(texts[e.id]) for e in examples]
        assert row["tokens"] == before[name]["tokens"] and row["key"] != before[name]["key"]
    # Evaluation takes them for its own: nothing is left to do.
    assert evaluation.evaluate(config, workdir).measured == 0


def test_what_cannot_be_scored_is_named_and_stays(workdir):
    [kept, gone, *_] = qualities(workdir)
    rows = results.read(workdir)
    (pathlib.Path(workdir) / answers.FOLDER / f"{gone}.jsonl.gz").unlink()
    for row in rows:
        if row.get("answers") == kept:
            del row["answers"]  # as rows were before answers were kept
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (pathlib.Path(workdir) / results.FILE).write_text(text)
    made = score.score(workdir)
    assert len(made.left) == 2 and "its answers were not kept" in str(made)
    assert results.read(workdir) == rows


def test_another_task_is_refused(workdir):
    with pytest.raises(UserError, match="answers of the task gsm_symbolic, which gsm8k cannot"):
        score.score(workdir, {"name": "gsm8k"})


def test_the_script(workdir):
    command = [sys.executable, "scripts/score.py", f"--workdir={workdir}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "4 of 4 rows scored anew, 0 changed\n"), (
        done.stderr
    )
    with pytest.raises(UserError, match="^nowhere holds no evaluation"):
        called.call("scripts/score.py", "--workdir=nowhere")
