import re

import ml_collections
import pytest

from speccascade import tasks
from speccascade.errors import UserError
from speccascade.tasks import gsm_symbolic


def config(**changes):
    return ml_collections.ConfigDict(
        {
            "name": "gsm_symbolic",
            "seed": 0,
            "templates": (10, 43, 48, 72),
            "max_number": 60,
            "train_size": 600,
            "validation_size": 60,
            "test_size": 60,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def splits():
    task = tasks.make(config())
    return {split: task.examples(split) for split in tasks.SPLITS}


def test_splits_share_nothing_and_have_no_duplicates(splits):
    prompts = [e.prompt for examples in splits.values() for e in examples]
    ids = [e.id for examples in splits.values() for e in examples]
    assert len(set(prompts)) == len(set(ids)) == len(prompts) == 720


def test_examples_are_deterministic_and_prefixes(splits):
    task = tasks.make(config())
    assert task.examples("test") == splits["test"]
    assert task.examples("test", 10) == splits["test"][:10]
    assert tasks.make(config(seed=1)).examples("test") != splits["test"]
    # Growing one split changes neither what it held nor the others.
    assert tasks.make(config(train_size=700)).examples("train")[:600] == splits["train"]


def test_numbers_stay_below_the_bound_and_answers_score(splits):
    task = tasks.make(config())
    for example in splits["validation"]:
        assert max(map(int, re.findall(r"\d+", example.prompt + example.answer))) <= 60
        assert example.prompt.endswith("\n")
        assert task.score(example.answer, example) == 1.0
        assert task.score(example.answer + "1", example) == 0.0


def test_answers_in_nested_metadata_and_disagreeing_ones():
    item = {"question": "q", "answer": "36", "metadata": {"a": {"answer_cot": "x\n#### 36.0"}}}
    assert gsm_symbolic._read(item) == ("q", "x\n#### 36.0", 36.0)
    assert gsm_symbolic._read({**item, "answer": "37"}) is None
    assert gsm_symbolic._read({**item, "metadata": {}}) is None


def test_every_working_template_gives_problems():
    working, generators = gsm_symbolic._templates()
    assert working <= set(generators)


def test_a_split_may_be_empty_and_not_larger_than_there_are_problems(monkeypatch):
    assert tasks.make(config(test_size=0)).examples("test") == []
    assert tasks.make(config()).examples("test", 0) == []
    monkeypatch.setattr(gsm_symbolic, "_FRUITLESS", 100)
    few = tasks.make(config(templates=(10,), max_number=20, test_size=10**6))
    assert len(few.examples("test", 5)) == 5
    with pytest.raises(UserError, match=r"task.test_size=1000000: .* have \d+ problems of that"):
        few.examples("test")


def test_errors():
    with pytest.raises(UserError, match="unknown task 'sums'; known: .*gsm_symbolic, .*questions"):
        tasks.make(config(name="sums"))
    with pytest.raises(UserError, match="not \\[1000\\]"):
        tasks.make(config(templates=(10, 1000)))
    with pytest.raises(UserError, match="unknown split"):
        tasks.make(config()).examples("dev")
    with pytest.raises(UserError, match="raise task.max_number"):
        tasks.make(config(max_number=1)).examples("test")
