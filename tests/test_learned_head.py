"""Heads as files, names and parts of a setting; what they compute is in `rule_oracle`."""

import json
import pathlib

import jax
import numpy as np
import pytest

from speccascade import learned_head, rules
from speccascade.errors import UserError
from speccascade.inference.reading import from_fields, setting
from speccascade.inference.setting import digest
from tests import toy_head


def written(path, **changes):
    fields = json.loads(pathlib.Path(toy_head.PATH).read_text())
    path.write_text(json.dumps({**fields, **changes}))
    return str(path)


def test_a_head_survives_its_file(tmp_path):
    head = learned_head.load(toy_head.PATH)
    path = str(tmp_path / "head.json")
    learned_head.save(head, path, {"seed": 1})
    assert learned_head.load(path) == head and learned_head.load(path).hash == head.hash
    assert not list(tmp_path.glob("*.partial"))


def test_a_name_holds_what_was_read(tmp_path):
    path = written(tmp_path / "mine.json")
    name = learned_head.reference(path)
    assert name == f"{path}@{learned_head.load(toy_head.PATH).hash}"
    assert learned_head.reference(name) == name
    assert f"head={name:g}" == f"head=mine@{learned_head.load(path).hash[:6]}"
    assert f"{learned_head.Reference('shipped:gsm@0123456789abcdef'):g}" == "gsm@012345"
    written(tmp_path / "mine.json", notes={"other": "notes"})
    assert learned_head.reference(path) == name
    written(tmp_path / "mine.json", output_bias=[0.0, 0.25])
    assert learned_head.reference(path) != name
    with pytest.raises(UserError, match="mine.json is not what it was"):
        learned_head.load(f"{path}@{'0' * 16}")
    # What was read stays what it was.
    assert learned_head.load(name) == learned_head.load(toy_head.PATH)


def entry(path, **fields):
    return {"rule": "learned", "head": path, "alpha": 0.1, "draft_length": 2, **fields}


def test_a_row_is_of_one_content(tmp_path):
    path = written(tmp_path / "head.json")
    before, old = setting(entry(path)), learned_head.load(path)
    assert str(before).startswith("learned alpha=0.1 head=head@") and len(str(before)) < 60
    assert from_fields(json.loads(json.dumps(before.fields()))) == before
    written(tmp_path / "head.json", hidden_bias=[0.0, 0.0, 1.0])
    after = setting(entry(path))
    assert digest(before.fields()) != digest(after.fields())
    # The rule that is made of a setting is that of its content.
    for chosen, head in ((before, old), (after, learned_head.load(path))):
        assert dict(rules.make("learned", **dict(chosen.knobs)).static_knobs)["head"] == head


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no head at .*head.json; train one with scripts/learn_rule.py"),
        ("{", "head .*head.json is damaged"),
        ("[]", "is no head of this version"),
        ({"mean": None}, "is no head of this version"),
        ({"mean": "0.5"}, "is no head of this version"),
        ({"hidden_weight": [[0.0], "x"]}, "is no head of this version"),
        ({"features": None}, "is no head of this version .*lacks features"),
        ({"features": ["max q1"]}, "is no head of this version"),
        ({"hidden_bias": [0.0]}, "is no head of this version"),
        ({"mean": ["a"] * 8}, "is no head of this version"),
        ({"mean": [0.0] * 7}, "is no head of this version"),
        ({"mean": [float("nan")] + [0.0] * 7}, "is no head of this version"),
        ({"scale": [0.0] * 8}, "is no head of this version"),
    ],
)
def test_what_is_no_head_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "head.json"
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        written(path, **content)
    for fails in (lambda: setting(entry(str(path))), lambda: learned_head.load(str(path))):
        with pytest.raises(UserError, match=message) as error:
            fails()
        assert "\n" not in str(error.value)


def test_a_rule_without_its_head_is_refused():
    with pytest.raises(UserError, match="learned needs head; its domain is a head, the file that"):
        setting({"rule": "learned", "alpha": 0.1, "draft_length": 2})
    with pytest.raises(UserError, match="head=3 must name a file"):
        setting(entry(3))
    with pytest.raises(UserError, match="no head at .*shipped.nonsense"):
        setting(entry("shipped:nonsense"))


@jax.jit
def right_and_gain(q, p, q1, p1):
    """Returns how probably each model is right to the head, `[B, 2]`, and the gain, `[B]`."""
    head = learned_head.load(toy_head.PATH)
    right = jax.nn.sigmoid(learned_head.logits(head, learned_head.features(q1, p1)))
    return right, learned_head.gain(head, q, p, q1, p1)[:, 0]


def test_greedy_gain_is_the_difference_of_both_estimates():
    rng = np.random.default_rng(0)
    q1, p1 = rng.dirichlet(np.ones(5), size=(2, 40)).astype(np.float32)
    q, p = (np.eye(5, dtype=np.float32)[x.argmax(-1)] for x in (q1, p1))
    right, gain = map(np.asarray, right_and_gain(q, p, q1, p1))
    expected = np.where(q1.argmax(-1) == p1.argmax(-1), 0, right[:, 1] - right[:, 0])
    np.testing.assert_allclose(gain, expected, atol=1e-6)


def test_a_drafter_with_a_longer_tail_is_worth_less():
    # Both like the first token best; what the drafter spreads over the others is lost.
    p = np.array([[0.9, 0.1, 0.0, 0.0]] * 2, np.float32)
    q = np.array([[0.7, 0.1, 0.1, 0.1], [1.0, 0.0, 0.0, 0.0]], np.float32)
    right, gain = map(np.asarray, right_and_gain(q, p, q, p))
    right = right[:, 1]
    np.testing.assert_allclose(gain, [0.2 * right[0], -0.1 * right[1]], atol=1e-6)
    made = rules.make("learned", alpha=0.0, head=toy_head.PATH)
    pi = jax.jit(rules.target)(made, q, p, q, p)
    np.testing.assert_array_equal(pi, np.stack([p[0], q[1]]))
