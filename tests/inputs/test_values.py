"""Numbers and configs as users write them, in Python's, NumPy's and JAX's kinds."""

import fractions
import json
import math
import pathlib

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speccascade.errors import UserError
from speccascade.inputs import values

BITS = {8, 16, 32, 64}
WHOLE_TYPES = [int] + [getattr(np, f"{sign}int{bits}") for sign in ("", "u") for bits in BITS]


@pytest.mark.parametrize("kind", [*WHOLE_TYPES, np.array, jnp.int32, jnp.asarray])
def test_whole_numbers_of_any_kind(kind):
    found = values.whole("top_k", kind(7), 1)
    assert found == 7 and type(found) is int
    assert values.number("alpha", kind(7)) == 7.0


@given(st.integers())
def test_whole_numbers_of_any_size(value):
    assert values.whole("seed", value) == value


@pytest.mark.parametrize("value", [True, np.True_, jnp.array(True), 5.0, np.float64(5), "5", None])
def test_what_is_no_whole_number(value):
    with pytest.raises(UserError, match="^n=.* must be a whole number, at least 1$"):
        values.whole("n", value, 1)


def test_the_least_is_allowed_and_what_is_below_is_not():
    assert values.whole("n", 1, 1) == 1
    with pytest.raises(UserError, match="^n=0 must be at least 1$"):
        values.whole("n", np.int64(0), 1)


@pytest.mark.parametrize("kind", [float, np.float16, np.float32, np.float64, jnp.bfloat16])
def test_numbers_of_any_kind(kind):
    found = values.number("alpha", kind(0.375))
    assert found == 0.375 and type(found) is float
    assert values.number("alpha", np.asarray(kind(0.375))) == 0.375


def test_a_fraction_is_a_number():
    assert values.number("alpha", fractions.Fraction(3, 8)) == 0.375


@pytest.mark.parametrize(
    "value",
    [True, np.True_, "0.5", None, math.nan, math.inf, 10**400, 1j, [0.5], np.array([0.5]), b"1"],
)
def test_what_is_no_number(value):
    with pytest.raises(UserError, match=r"^alpha=.* must be a finite number$"):
        values.number("alpha", value)


def test_a_config_of_any_kinds_is_that_of_plain_ones():
    mixed = ml_collections.ConfigDict(
        {"a": np.int64(3), "b": (np.float64(0.5), np.True_), "c": {"d": pathlib.Path("x/y")}}
    )
    mixed.e = np.array([1, 2])
    plain = {"a": 3, "b": [0.5, True], "c": {"d": "x/y"}, "e": [1, 2]}
    assert values.json_ready({"whole": mixed}) == {"whole": plain}
    assert json.dumps(values.json_ready(plain)) == json.dumps(plain)


def test_what_no_file_can_keep_is_named():
    with pytest.raises(UserError, match="is neither number, text, list nor path"):
        values.json_ready({"a": object()})


@pytest.mark.parametrize("value", [3, np.int64(3), np.array(3), (3,), [3], np.array([3])])
def test_a_number_alone_is_a_list_of_one(value):
    assert values.wholes("n", value, 1) == [3]
    assert values.numbers("n", value) == [3.0]


@pytest.mark.parametrize("value", ["3", b"3", {"a": 3}, ml_collections.ConfigDict({"a": 3}), [], 0])
def test_what_is_no_list_of_whole_numbers(value):
    with pytest.raises(UserError, match="^n"):
        values.wholes("n", value, 1)


def test_numbers_that_float32_cannot_hold_are_none():
    assert values.number("alpha", 3e38) == 3e38
    with pytest.raises(UserError, match="alpha=1e[+]39 must be a finite number"):
        values.number("alpha", 1e39)


@pytest.mark.parametrize("value", ["false", "True", 0, 1, None, [], [True]])
def test_what_is_neither_true_nor_false(value):
    with pytest.raises(UserError, match="^chat=.* must be True or False$"):
        values.boolean("chat", value)


@pytest.mark.parametrize("value", [None, 5, ["token"], {"token": 1}, b"token", "tokens"])
def test_what_is_no_choice(value):
    with pytest.raises(UserError, match="^verifier .* is unknown; choose one of: token, block$"):
        values.choice("verifier", value, ("token", "block"))
    assert values.choice("verifier", "token", ("token", "block")) == "token"


@pytest.mark.parametrize("value", [None, 5, "text", ["a"], 1.5, True])
def test_what_is_no_section(value):
    with pytest.raises(UserError, match="^mesh=.* must be a section of fields; see configs/x.py$"):
        values.section("mesh", value, (), "configs/x.py")


def test_all_that_a_section_lacks_is_named():
    given = ml_collections.ConfigDict({"timing": {"num_examples": 3}, "settings": ()})
    needed = ("settings", "splits", "timing.trials", "timing.num_examples")
    with pytest.raises(UserError, match="lacks evaluate.splits, evaluate.timing.trials$"):
        values.section("evaluate", given, needed)
    given.splits, given.timing = {}, {"trials": 1, "num_examples": 3}
    assert values.section("evaluate", given, needed) is given
