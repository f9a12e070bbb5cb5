"""Mixtral's files: many tensors become one parameter, and what is wrong with one is told."""

import re

import ml_dtypes
import numpy as np
import pytest
import tiny_checkpoint as tiny

from speccascade import importing
from speccascade.errors import UserError
from speccascade.importing import preparation
from speccascade.inputs.fields import Fields
from speccascade.models.quantisation import quantise

MIXTRAL = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
}
BLOCK = "model.layers.{}.block_sparse_moe"
SHAPES = {name: shape for name, shape in tiny.SHAPES.items() if ".mlp." not in name}
for _layer in range(2):
    SHAPES[f"{BLOCK.format(_layer)}.gate.weight"] = (3, 16)
    for _branch in range(3):
        for _name, _shape in {"w1": (24, 16), "w3": (24, 16), "w2": (16, 24)}.items():
            SHAPES[f"{BLOCK.format(_layer)}.experts.{_branch}.{_name}.weight"] = _shape
FIRST, LAST = (f"{BLOCK.format(1)}.experts.{branch}.w2.weight" for branch in (0, 2))


def test_branches_are_stacked_from_all_shards(tmp_path):
    weights = tiny.tensors(shapes=SHAPES)
    source = str(tiny.write(tmp_path / "hf", weights, shards=3, **MIXTRAL))
    loaded = importing.load(source)
    found = loaded.params["mlp_1"]
    for name, theirs in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
        names = (f"{BLOCK.format(1)}.experts.{i}.{theirs}.weight" for i in range(3))
        np.testing.assert_array_equal(found[name], [weights[name] for name in names])
    np.testing.assert_array_equal(found["router"], weights[f"{BLOCK.format(1)}.gate.weight"])
    rounded = importing.load(source, weights="int8").params["mlp_1"]
    expected = quantise(loaded.model, loaded.params)[1]["mlp_1"]
    np.testing.assert_array_equal(rounded["down"].values, expected["down"].values)
    np.testing.assert_array_equal(rounded["down"].scale, expected["down"].scale)


def test_branches_may_be_stored_in_several_dtypes(tmp_path):
    weights = tiny.tensors(shapes=SHAPES)
    names = [f"{BLOCK.format(1)}.experts.{i}.w2.weight" for i in range(3)]
    for name, dtype in zip(names, (np.float16, ml_dtypes.bfloat16), strict=False):
        weights[name] = weights[name].astype(dtype)
    found = importing.load(str(tiny.write(tmp_path / "hf", weights, **MIXTRAL))).params["mlp_1"]
    np.testing.assert_array_equal(found["down"], [weights[name] for name in names])


def without(weights):
    del weights[LAST]


def reshaped(weights):
    weights[LAST] = weights[LAST].T.copy()


def damaged(weights):
    weights[LAST][3, 5] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without, f"missing: {LAST}$"),
        (reshaped, rf"wrong shapes: {LAST} is \[24, 16\] instead of \[16, 24\]$"),
        (damaged, rf"hold NaN or infinite values: {FIRST} and the 2 after it"),
    ],
)
def test_a_branch_that_is_wrong_is_named(tmp_path, change, message):
    weights = tiny.tensors(shapes=SHAPES)
    change(weights)
    with pytest.raises(UserError, match=message):
        importing.load(str(tiny.write(tmp_path / "hf", weights, **MIXTRAL)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts_per_tok": 4}, "num_experts_per_tok=4; it must be at most the 3 of"),
        ({"num_experts": 8}, "num_experts=8: not implemented, only 3"),
        ({"num_local_experts": 10**9}, "num_local_experts=1000000000"),
        ({"architectures": ["DeepseekV3ForCausalLM"]}, "DeepseekV3ForCausalLM.*: not implemented"),
        ({"n_shared_experts": 1}, "fields that are not implemented: n_shared_experts"),
    ],
)
def test_other_mixtures_are_refused_in_one_line(change, message):
    fields = Fields({**tiny.CONFIG, **MIXTRAL, **change}, "config.json")
    _, problems = preparation._plan(fields)
    (line,) = problems
    assert re.search(message, line) and "\n" not in line
