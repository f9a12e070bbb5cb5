"""Configs of sweeps that are refused, in one line and before any work."""

import dataclasses
import functools
import re

import ml_collections
import pytest

from speccascade import learned_head, pairs
from speccascade.errors import UserError
from speccascade.evaluate import evaluation, prepared
from tests import tiny_pair, toy_head


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The directory of a random pair."""
    directory = str(tmp_path_factory.mktemp("pair"))
    pairs.export(tiny_pair.make(), directory, {})
    return directory


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluate.batch_size": 0}, "evaluate.batch_size=0 must be at least 1"),
        ({"evaluate.batch_size": 10**11}, "batch_size=100000000000 needs more than .*; lower it"),
        ({"evaluate.max_new_tokens": 0}, "evaluate.max_new_tokens=0"),
        ({"evaluate.timing.trials": 0}, "evaluate.timing.trials=0"),
        ({"evaluate.splits.test": 11}, "split test has 10 examples; lower evaluate.splits.test"),
        ({"evaluate.splits.test": 0}, "evaluate.splits.test=0"),
        ({"evaluate.settings": ({"rule": "spec", "draft_length": 0},)}, "draft_length=0 must be"),
        ({"task.name": "nonsense"}, "unknown task 'nonsense'"),
        ({"pair": "shipped:nonsense"}, "no shipped pair 'nonsense'"),
    ],
)
def test_bad_input_is_refused_before_any_work(exported, tmp_path, changes, message):
    config = tiny_pair.get_config(exported)
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        evaluation.evaluate(config, str(tmp_path / "w"))
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "place",
    [
        *("task", "task.name", "pair", "pair.chat", "pair.drafters", "pair.expert", "mesh"),
        *("mesh.data", "mesh.drafter", "evaluate", "evaluate.settings", "evaluate.splits"),
        *("evaluate.splits.test", "evaluate.max_new_tokens", "evaluate.batch_size"),
        *("evaluate.timing", "evaluate.timing.trials", "evaluate.timing.num_examples"),
    ],
)
@pytest.mark.parametrize("value", ["x", 1.5, ["a"], [None], {"a": 1}, float("nan")], ids=repr)
def test_a_field_of_another_kind_is_one_line_that_names_it(exported, place, value):
    config = tiny_pair.get_config(exported).to_dict()
    if place.startswith("mesh"):
        config["mesh"] = {"data": 1}
    if place.startswith("pair."):
        config["pair"] = {"drafter": f"{exported}/drafter", "expert": f"{exported}/expert"}
    *above, last = place.split(".")
    section = functools.reduce(dict.__getitem__, above, config)
    section[last] = value
    with pytest.raises(UserError) as found:
        prepared.prepare(ml_collections.ConfigDict(config))
    message = str(found.value)
    assert "\n" not in message
    assert re.search(rf"{last}|{re.escape(str(value))}|a: 1|'a'|^1 is", message), message


def test_a_split_without_examples_is_refused(exported, tmp_path):
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"prompt": "2 + 2?", "answers": ["4"], "split": "validation"}\n')
    config = tiny_pair.get_config(exported)
    del config["task"]
    config.task = {"name": "questions", "path": str(questions)}
    config.evaluate.splits = {"validation": 1, "test": 1}
    with pytest.raises(UserError, match="split test has 0 examples; give the task some, or leave"):
        prepared.prepare(config)


def test_what_the_config_lacks_is_named(exported, tmp_path):
    config = tiny_pair.get_config(exported)
    del config.evaluate.splits
    del config.evaluate.timing.trials
    with pytest.raises(UserError, match="lacks evaluate.splits, evaluate.timing.trials"):
        evaluation.evaluate(config, str(tmp_path / "w"))
    assert not (tmp_path / "w").exists()


def test_a_head_is_not_measured_by_what_it_was_trained_on(exported, tmp_path):
    config = tiny_pair.get_config(exported)
    path = str(tmp_path / "head.json")
    notes = {"task": config.task.name, "split": "validation", "first": 4}
    learned_head.save(learned_head.load(toy_head.PATH), path, notes)
    config.evaluate.settings = ({"rule": "learned", "head": path, "alpha": 0.1, "draft_length": 2},)
    with pytest.raises(UserError, match="from 4 on; lower evaluate.splits.validation .now 5"):
        prepared.prepare(config)
    config.evaluate.splits.validation = 4
    prepared.prepare(config)
    of_training = {"task": config.task.name}
    learned_head.save(learned_head.load(toy_head.PATH), path, of_training)
    config.evaluate.splits.train = 3
    with pytest.raises(UserError, match="leave evaluate.splits.train out"):
        prepared.prepare(config)


def test_prompts_longer_than_the_context_are_refused(exported, tmp_path):
    pair = dataclasses.replace(pairs.load(exported), context_length=20)
    pairs.export(pair, tmp_path, {})
    with pytest.raises(UserError, match=r"prompt of test example \d+ has \d+ tokens"):
        prepared.prepare(tiny_pair.get_config(str(tmp_path)))
