import dataclasses
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest

from speccascade import pairs
from speccascade.errors import UserError
from speccascade.text import Tokenizer
from speccascade.training import checkpoints, loop
from tests import tiny_pair
from tests.training import tiny


@pytest.fixture(scope="module")
def pair():
    return tiny_pair.make()


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """An expert trained for two steps, and a drafter that is its copy but for the row length."""
    found = {role: str(tmp_path_factory.mktemp("trained") / role) for role in pairs.ROLES}
    config = tiny.get_config()
    config.train.num_steps = 2
    loop.train(config, found["expert"])
    shutil.copytree(found["expert"], found["drafter"])
    path = pathlib.Path(found["drafter"]) / "config.json"
    path.write_text(path.read_text().replace('"row_length": 160', '"row_length": 150'))
    return found


def test_an_exported_pair_is_the_same_in_bfloat16(pair, tmp_path):
    pairs.export(pair, tmp_path, {"seed": 0})
    loaded = pairs.load(str(tmp_path))
    assert (loaded.name, loaded.context_length) == (pair.name, pair.context_length)
    assert (loaded.drafter, loaded.expert) == (pair.drafter, pair.expert)
    assert loaded.tokenizer == pair.tokenizer
    assert json.loads((tmp_path / "pair.json").read_text())["training"] == {"seed": 0}
    assert jax.tree.structure(loaded.params) == jax.tree.structure(pair.params)
    rounded = jax.tree.map(lambda x: np.asarray(x, jax.numpy.bfloat16), pair.params)
    for mine, theirs in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(rounded), strict=True):
        assert mine.dtype == np.float32  # the dtype in which these models compute
        np.testing.assert_array_equal(mine, theirs.astype(np.float32))


def test_hash_is_of_models_and_parameters(pair, tmp_path):
    pairs.export(pair, tmp_path / "a", {})
    first = pairs.load(str(tmp_path / "a"))
    pairs.export(first, tmp_path / "b", {"other": "notes"})
    assert pairs.load(str(tmp_path / "b")).hash == first.hash
    nudged = jax.tree.map(lambda x: x + 1, pair.params)
    pairs.export(dataclasses.replace(pair, params=nudged), tmp_path / "c", {})
    assert pairs.load(str(tmp_path / "c")).hash != first.hash


def test_workdirs_make_a_pair_that_can_be_exported(workdirs, tmp_path):
    loaded = pairs.load(workdirs)
    assert loaded.context_length == 150
    _, params, _ = checkpoints.load_model(workdirs["expert"])
    for mine, theirs in zip(
        jax.tree.leaves(loaded.params["expert"]), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    written = pairs.export_workdirs(workdirs, str(tmp_path), "trained", ["machine=two cores"])
    assert written.name == "trained" and written.context_length == 150
    notes = json.loads((tmp_path / "pair.json").read_text())["training"]
    assert notes["machine"] == "two cores"
    assert notes["expert"]["steps"] == 2 and notes["expert"]["config"]["train"]["seed"] == 0
    with pytest.raises(UserError, match="--note=nonsense must be KEY=VALUE"):
        pairs.export_workdirs(workdirs, str(tmp_path), "trained", ["nonsense"])


def test_workdirs_of_different_vocabularies_are_refused(workdirs, tmp_path):
    other = tmp_path / "drafter"
    shutil.copytree(workdirs["drafter"], other)
    Tokenizer.train(["abcdefgh" * 100], 258).save(other / "tokenizer.json")
    with pytest.raises(UserError, match="have different vocabularies"):
        pairs.load({"drafter": str(other), "expert": workdirs["expert"]})
    with pytest.raises(UserError, match="give these two"):
        pairs.load({"drafter": str(other)})
    with pytest.raises(UserError, match="is missing"):
        pairs.load({"drafter": str(tmp_path / "nowhere"), "expert": workdirs["expert"]})


def test_models_of_another_vocabulary_are_refused(pair):
    smaller = Tokenizer.train(["one two three"], 258)
    with pytest.raises(UserError, match="all must share one vocabulary"):
        dataclasses.replace(pair, tokenizer=smaller)


@pytest.mark.parametrize("name", ["drafter.safetensors", "expert.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("share", [None, 0.0, 0.3, 0.9])
def test_missing_and_truncated_files_are_one_line(pair, tmp_path, name, share):
    pairs.export(pair, tmp_path, {})
    path = tmp_path / name
    data = path.read_bytes()
    path.unlink()
    if share is not None:
        path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=re.escape(name)) as caught:
        pairs.load(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_parameters_of_another_model_are_refused(pair, tmp_path):
    pairs.export(pair, tmp_path, {})
    shutil.copy(tmp_path / "drafter.safetensors", tmp_path / "expert.safetensors")
    with pytest.raises(UserError, match="holds other arrays"):
        pairs.load(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_damaged_descriptions_are_one_line(pair, tmp_path, text):
    pairs.export(pair, tmp_path, {})
    (tmp_path / "pair.json").write_text(text)
    with pytest.raises(UserError, match="export the pair again"):
        pairs.load(str(tmp_path))


def test_unknown_sources_are_one_line(tmp_path):
    with pytest.raises(UserError, match="no shipped pair 'nonsense'"):
        pairs.load("shipped:nonsense")
    with pytest.raises(UserError, match="no pair at .*; give shipped:NAME"):
        pairs.load(str(tmp_path))
