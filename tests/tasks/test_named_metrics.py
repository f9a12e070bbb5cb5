"""Metrics of texts by name, in a file of questions: against closed forms and the usual packages."""

import json

import ml_collections
import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from speccascade import tasks
from speccascade.errors import UserError
from speccascade.tasks import aggregate
from speccascade.tasks.metrics import METRICS

ANSWERS = ("the quick brown fox jumps over it", "a quick fox jumps")
TEXT = "A quick brown fox jumps over the dog."


def make(tmp_path, rows, **fields):
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"name": "questions", "path": str(path), **fields}
    return tasks.make(ml_collections.ConfigDict(config))


def question(*answers, prompt="What?"):
    return {"prompt": prompt, "answers": list(answers), "split": "test"}


@pytest.mark.parametrize(
    ("metric", "answers", "scores"),
    [
        ("contains", ("Rome", "Roma"), {"It is Roma!": 1.0, "Romans": 0.0}),
        ("exact_match", ("the Rome",), {"rome.": 1.0, "It is Rome": 0.0}),
        # Of three and two words two are shared; of the other answer none.
        ("f1", ("red blue", "green"), {"red, blue, grey": 0.8, "grey": 0.0, "The green": 1.0}),
        ("final_number", ("#### 1,200",), {"so #### 1200": 1.0, "1200": 0.0, "#### 12": 0.0}),
    ],
)
def test_scores_by_closed_forms(metric, answers, scores, tmp_path):
    task = make(tmp_path, [question(*answers)], metric=metric)
    [example] = task.examples("test")
    assert (task.aggregate, task.full_score, task.scored_with) == ("mean", 1.0, ())
    for text, expected in scores.items():
        assert task.score(text, example) == pytest.approx(expected)
        # What was thought aloud is no part of an answer.
        assert task.score(f"<think>{answers[0]}</think>{text}", example) == pytest.approx(expected)


def test_rouge_is_the_packages_own_over_the_best_answer(tmp_path):
    task = make(tmp_path, [question(*ANSWERS)], metric="rouge_2")
    [example] = task.examples("test")
    scorer = RougeScorer(["rouge2"], use_stemmer=True)
    best = max(scorer.score(answer, TEXT)["rouge2"].fmeasure for answer in ANSWERS)
    assert task.score(TEXT, example) == pytest.approx(100 * best)
    assert task.full_score == 100.0 and task.scored_with == ("rouge-score",)


def test_bleu_is_that_of_all_answers(tmp_path):
    rows = [question(answer, prompt=f"{i}?") for i, answer in enumerate(ANSWERS)]
    task = make(tmp_path, rows, metric="bleu")
    texts = [TEXT, "a quick fox jumps high"]
    scores = [
        task.score(text, example)
        for text, example in zip(texts, task.examples("test"), strict=True)
    ]
    wanted = sacrebleu.corpus_bleu(texts, [list(ANSWERS)]).score
    assert aggregate.statistic(task.aggregate)(np.array(scores)) == pytest.approx(wanted)
    assert task.full_score == 100.0 and task.scored_with == ("sacrebleu",)


@pytest.mark.parametrize(
    ("metric", "answers", "message"),
    [
        ("best", ["x"], "task.metric 'best' is unknown; choose one of: contains, exact_match, f1"),
        ("final_number", ["many"], "line 1: answers .* each with a number, alone or behind ####"),
        ("exact_match", ["the"], "line 1: answers .* a word besides articles and punctuation"),
        ("bleu", ["a", "b"], "line 1: this metric takes one answer a prompt; there are 2"),
        ("rouge_2", [], "line 1: answers must be a list of at least one text"),
    ],
)
def test_what_no_text_could_be_scored_by(metric, answers, message, tmp_path):
    with pytest.raises(UserError, match=message) as raised:
        make(tmp_path, [question(*answers)], metric=metric)
    assert "\n" not in str(raised.value)


def test_every_metric_gives_its_best_to_an_accepted_answer(tmp_path):
    for name, metric in METRICS.items():
        answer = "so it is, as said above, #### 5"
        metric.check([answer])
        scores = [metric.score(text, [answer]) for text in (answer, "nothing of the kind at all")]
        of = aggregate.statistic(metric.aggregate)
        best, worst = (float(of(np.array([score]))) for score in scores)
        assert best == pytest.approx(metric.full_score) and worst == 0.0, name
