"""A file of questions of one's own with a metric, all the way: evaluate, score, report, tune."""

import json

import ml_collections
import pytest

from speccascade import pairs, tasks
from speccascade.evaluate import evaluation, score
from speccascade.report import report
from speccascade.tasks.metrics import METRICS
from speccascade.tuning import tuner
from speccascade.workdir import answers, results
from tests import tiny_pair

pytestmark = pytest.mark.slow
SIZE = 4


@pytest.fixture
def config(tmp_path):
    rows = [
        {
            "prompt": f"{tiny_pair.PROMPT}{split[0]}{i}",
            "answers": [f"How many? {i}"],
            "split": split,
        }
        for split in ("validation", "test")
        for i in range(SIZE)
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs.export(tiny_pair.make(), str(tmp_path / "pair"), {})
    made = tiny_pair.get_config(str(tmp_path / "pair"))
    made.task = ml_collections.ConfigDict(
        {"name": "questions", "path": str(path), "metric": "rouge_2"}
    )
    made.evaluate.settings = ({"method": "autoregressive_expert"},)
    made.evaluate.splits = {"test": SIZE}
    made.evaluate.timing.num_examples = 0
    return made


def test_answers_are_scored_by_any_metric(config, tmp_path):
    workdir = str(tmp_path / "work")
    assert evaluation.evaluate(config, workdir).failed == []
    for name in ("rouge_2", "f1", "bleu"):
        options = {**config.task.to_dict(), "metric": name}
        score.score(workdir, options)
        [row] = results.read(workdir)
        kept = {a["id"]: a["text"] for a in answers.read(workdir, row["answers"])}
        examples = tasks.make(ml_collections.ConfigDict(options)).examples("test")
        expected = [METRICS[name].score(kept[e.id], e.reference) for e in examples]
        assert [list(s) if name == "bleu" else s for s in expected] == row["scores"]
        assert row["aggregate"] == METRICS[name].aggregate
    # Evaluation with the metric of the last scoring finds nothing to do.
    config.task.metric = "bleu"
    assert evaluation.evaluate(config, workdir).measured == 0


def test_tables_and_a_choice_with_a_promise(config, tmp_path):
    config.evaluate.settings += ({"rule": "spec", "draft_length": 2},)
    config.evaluate.splits = {"validation": SIZE, "test": SIZE}
    config.evaluate.timing = {"num_examples": 2, "trials": 2}
    workdir = str(tmp_path / "work")
    tuned = tuner.tune(config, workdir, max_quality_loss=5.0)
    assert not tuned.failed and "Quality at most 5 below the expert's" in tuned.text
    assert evaluation.evaluate(config, workdir).failed == []
    text, _ = report(workdir)
    [row] = [r for r in results.read(workdir) if r["rule"] == "spec" and r["split"] == "test"][:1]
    assert f"{row['quality']:.3f} [" in text
