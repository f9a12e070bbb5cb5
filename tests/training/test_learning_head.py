"""Training the head of `learned`: what it reads, what it learns, and how it is judged."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from speccascade import learned_head, pairs, tasks
from speccascade.errors import UserError
from speccascade.evaluate import evaluation
from speccascade.evaluate.jobs import QUALITY
from speccascade.training import learned_head as learning
from speccascade.training.learned_head import Positions, learned_right, plugin, quality, train
from speccascade.workdir import results
from tests import tiny_pair
from tests.rule_oracle import entropy, tv

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("pair"))
    pairs.export(tiny_pair.make(), directory, {})
    return directory


def test_positions_are_the_answers_tokens_as_the_models_see_them():
    pair = tiny_pair.make()
    examples = tasks.make(tiny_pair.get_config().task).examples("train", 5)
    found = learning.read(pair, examples)
    scores = [
        jax.jit(functools.partial(pair.models[role].forward, pair.params[role]))
        for role in ("drafter", "expert")
    ]
    number = 0
    for index, example in enumerate(examples):
        [prompt] = pair.encode_prompts([example.prompt])
        [answer] = pair.tokenizer.encode_batch([example.answer])
        text = [*prompt, *answer, pair.tokenizer.eos_ids[0]]
        row = np.zeros((1, 160), np.int32)  # one by one, of another length than the batch has
        row[0, : len(text)] = text
        q1, p1 = (
            np.asarray(jax.nn.softmax(score(row, np.array([len(prompt)]))))[0].astype(np.float64)
            for score in scores
        )
        for at in range(len(prompt) - 1, len(text) - 1):
            q, p, wanted = q1[at], p1[at], text[at + 1]
            drafted, best = q.argmax(), p.argmax()
            expected = [q.max(), p.max(), entropy(q), entropy(p), tv(q, p)]
            expected += [p[drafted], q[best], drafted == best]
            np.testing.assert_allclose(found.features[number], expected, atol=2e-3)
            assert found.right[number].tolist() == [drafted == wanted, best == wanted]
            assert found.example[number] == index
            number += 1
    assert number == len(found.example)


def drawn(seed, size=20_000):
    """Positions whose truth is known: the more the expert is sure of itself the less it is right.

    Returns:
      The positions and the true probabilities [M, 2].
    """
    rng = np.random.default_rng(seed)
    features = rng.uniform(size=(size, 8)).astype(np.float32)
    features[:, 7] = 0  # never changes
    truth = np.column_stack([0.2 + 0.6 * features[:, 4], 0.9 - 0.8 * features[:, 1]])
    right = rng.uniform(size=(size, 2)) < truth
    return Positions(features, right, np.arange(size) // 10), truth


def test_it_learns_what_the_plug_in_gets_wrong():
    positions, _ = drawn(0)
    unseen, truth = drawn(1)
    found = quality(learned_right(train(positions, 0), unseen), unseen)
    best, plug_in = quality(truth, unseen), quality(plugin(unseen), unseen)
    assert plug_in.log_loss > best.log_loss + 0.2 and plug_in.auc < best.auc - 0.2
    assert best.log_loss - 0.005 < found.log_loss < best.log_loss + 0.01
    assert best.auc - 0.02 < found.auc < best.auc + 0.005


def test_a_seed_makes_one_head():
    positions, _ = drawn(0, size=400)
    assert train(positions, 1).hash == train(positions, 1).hash != train(positions, 2).hash


def test_judged_by_their_definitions():
    rng = np.random.default_rng(3)
    right = rng.uniform(size=(60, 2)).round(1)  # with ties
    positions = Positions(np.zeros((60, 8)), rng.uniform(size=(60, 2)) < 0.5, np.zeros(60, int))
    p = np.clip(right, 1e-6, 1 - 1e-6)
    told = zip(p.flat, positions.right.flat, strict=True)
    expected = np.mean([-np.log(a if ok else 1 - a) for a, ok in told])
    tokens = list(zip(right[:, 1] - right[:, 0], positions.right.tolist(), strict=True))
    pairs_won = [
        (a > b) + (a == b) / 2
        for a, who in tokens
        for b, other in tokens
        if who == [False, True] != other
    ]
    found = quality(right, positions)
    assert found.log_loss == pytest.approx(expected)
    assert found.auc == pytest.approx(np.mean(pairs_won))
    same = positions._replace(right=np.ones((60, 2), bool))
    assert quality(right, same).auc is None


class Watched:
    """A task that notes which splits were read."""

    def __init__(self, task):
        self.task, self.splits = task, []

    def examples(self, split, limit=None):
        self.splits.append(split)
        return self.task.examples(split, limit)


def test_only_the_training_split_is_read(exported, tmp_path, monkeypatch):
    config = tiny_pair.get_config(exported)
    watched = Watched(tasks.make(config.task))
    monkeypatch.setattr(tasks, "make", lambda *_: watched)
    out = str(tmp_path / "new" / "head.json")
    text = learning.learn(config, out, 20, seed=0)
    assert watched.splits == ["train"]
    assert "held-out tokens" in text and learned_head.load(out).hash in text
    notes = json.loads(pathlib.Path(out).read_text())["notes"]
    assert notes["examples"] == 20 and notes["pair"] == pairs.load(exported).hash
    assert notes["learned"]["log_loss"] < notes["plug_in"]["log_loss"]

    # A sweep decodes by it, in one table with the rules that it is compared with.
    config = tiny_pair.get_config(exported)
    monkeypatch.undo()
    config.evaluate.settings = (
        {"method": "autoregressive_expert", "temperature": 1.0},
        *(
            {"rule": rule, "alpha": 0.1, "draft_length": 2, "temperature": 1.0, **more}
            for rule, more in {"opt": {}, "learned": {"head": out}}.items()
        ),
    )
    config.evaluate.splits = {"test": 4}
    config.evaluate.timing.num_examples = 0
    assert evaluation.evaluate(config, str(tmp_path / "w")) == evaluation.Outcome(6, [])
    rows = [row for row in results.read(tmp_path / "w") if row["kind"] == QUALITY]
    deferral = {row["rule"]: row["deferral_rate"] for row in rows if row["rule"]}
    assert set(deferral) == {"opt", "learned"} and 0 <= deferral["learned"] <= 1
    assert all(
        row["knobs"]["head"] == learned_head.reference(out)
        for row in rows
        if row["rule"] == "learned"
    )


def test_unseen_examples_are_those_of_validation_that_nothing_measures(
    exported, tmp_path, monkeypatch
):
    config = tiny_pair.get_config(exported)
    config.task.validation_size = 60
    config.evaluate.splits = {"validation": 35, "test": 5}
    whole = tasks.make(config.task).examples("validation")
    read = []
    positions, _ = drawn(0, size=400)
    monkeypatch.setattr(learning, "read", lambda _, examples: read.extend(examples) or positions)
    out = tmp_path / "head.json"
    learning.learn(config, str(out), 100, seed=0, unseen=True)
    assert read == whole[35:] and len(read) == 25
    assert json.loads(out.read_text())["notes"]["split"] == "validation"
    config.evaluate.splits = {"validation": 50}
    with pytest.raises(UserError, match="has 10 examples after those measured"):
        learning.learn(config, str(out), 100, seed=0, unseen=True)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (".", "--out=. is a directory"),
        ("/proc/none/head.json", "--out=/proc/none/head.json cannot be written"),
    ],
)
def test_a_place_of_no_use_is_refused(exported, out, message):
    with pytest.raises(UserError, match="^[^\n]+$") as found:
        learning.learn(tiny_pair.get_config(exported), out, 512, seed=0)
    assert message in str(found.value)


def test_script_refuses_in_one_line(exported, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "scripts/learn_rule.py",
            f"--config=tests/tiny_pair.py:{exported}",
            f"--out={tmp_path}/head.json",
            "--num_examples=5",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "--num_examples=5 must be at least 20" in done.stderr


def test_configs_without_models_are_refused(tmp_path):
    config = tiny_pair.get_config("x")
    del config.pair
    with pytest.raises(UserError, match="the config lacks pair"):
        learning.learn(config, str(tmp_path / "head.json"), 30, seed=0)
