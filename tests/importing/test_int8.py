"""Weights that are rounded to int8 as they are read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import importing, models, pairs
from speccascade.errors import UserError
from speccascade.importing.preparation import flat
from speccascade.models.quantisation import quantise, widened
from speccascade.workdir import files
from tests.importing import tiny_checkpoint as tiny


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return str(tiny.write(tmp_path_factory.mktemp("hf") / "model"))


@pytest.fixture(scope="module")
def expected(source):
    """The model as it is, rounded after it was read."""
    found = importing.load(source)
    return quantise(found.model, found.params)


def assert_same(params, others):
    params, others = flat(params), flat(others)
    assert params.keys() == others.keys()
    for key in params:
        assert params[key].dtype == others[key].dtype
        np.testing.assert_array_equal(params[key], others[key], err_msg=key)


def test_each_matrix_is_rounded_as_it_is_read(source, expected):
    found = importing.load(source, weights="int8")
    assert found.model == expected[0]
    assert_same(found.params, expected[1])
    assert flat(found.params)["final_norm/scale"].dtype == np.float32


def test_a_workdir_keeps_them(source, expected, tmp_path):
    out = str(tmp_path / "out")
    done = importing.import_checkpoint(source, out, weights="int8")
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(expected[1]))
    assert done.nbytes == size and f"{size / 1e6:,.1f} MB in int8" in str(done)
    for weights in (None, "int8"):
        found = importing.load(out, weights=weights)
        assert found.model == expected[0]
        assert_same(found.params, expected[1])
    assert not importing.import_checkpoint(source, out, weights="int8").new
    with pytest.raises(UserError, match="holds another import, of .* in int8; give"):
        importing.import_checkpoint(source, out)
    importing.import_checkpoint(source, str(tmp_path / "float"))
    assert files.read_json(str(tmp_path / "float" / "import.json")).keys() == {
        "source",
        "dtype",
        "files",
    }
    with pytest.raises(UserError, match="holds another import, of .* in float32; give"):
        importing.import_checkpoint(source, str(tmp_path / "float"), weights="int8")
    assert_same(importing.load(str(tmp_path / "float"), weights="int8").params, expected[1])


def test_a_pair_rounds_both_models(source, expected, tmp_path):
    pair = pairs.load({"drafter": source, "expert": source, "weights": "int8"})
    assert pair.expert.vocab_size == 258  # padding is cut away
    for role in pairs.ROLES:
        assert models.describe(pair.models[role])["weight_dtype"] == "int8"
        params = flat(pair.params[role])
        assert params["embedding/values"].dtype == jnp.int8
        np.testing.assert_array_equal(
            params["head/weight/scale"], flat(expected[1])["head/weight/scale"][:258]
        )
    pairs.export(pair, tmp_path / "pair", {})
    again = pairs.load(str(tmp_path / "pair"))
    assert (again.drafter, again.expert) == (pair.drafter, pair.expert)
    # Matrices and their scales are stored as they are, what else there is in bfloat16.
    stored, made = flat(again.params), flat(pair.params)
    assert stored.keys() == made.keys()
    for key, leaf in made.items():
        if not key.endswith(("/values", "weight/scale", "embedding/scale")):
            leaf = leaf.astype(jnp.bfloat16).astype(leaf.dtype)
        assert stored[key].dtype == leaf.dtype
        np.testing.assert_array_equal(stored[key], leaf, err_msg=key)


def test_a_pair_rounds_what_drafts_alone(source):
    both = {"drafter": source, "expert": source}
    pair = pairs.load({**both, "drafter_weights": "int8"})
    rounded, as_it_was = (pairs.load({**both, **more}) for more in ({"weights": "int8"}, {}))
    assert (pair.drafter, pair.expert) == (rounded.drafter, as_it_was.expert)
    assert_same(pair.params["drafter"], rounded.params["drafter"])
    assert_same(pair.params["expert"], as_it_was.params["expert"])


def test_an_int8_model_is_widened_to_its_own_values(source):
    found = importing.load(source, weights="int8")
    model, params = widened(found.model, found.params)
    assert model.config.weight_dtype is None
    tokens, length = np.arange(6, dtype=np.int32)[None], np.ones(1, np.int32)
    np.testing.assert_allclose(
        jax.jit(model.forward)(params, tokens, length),
        jax.jit(found.model.forward)(found.params, tokens, length),
        atol=1e-4,
    )


def test_other_dtypes_are_refused(source, tmp_path):
    for load in (
        lambda: importing.load(source, weights="int4"),
        lambda: importing.import_checkpoint(source, str(tmp_path / "out"), weights="int4"),
        lambda: pairs.load({"drafter": source, "expert": source, "weights": "int4"}),
        lambda: pairs.load({"drafter": source, "expert": source, "drafter_weights": "int4"}),
    ):
        with pytest.raises(UserError, match="^weights='int4' is unknown; give int8, or leave it"):
            load()
