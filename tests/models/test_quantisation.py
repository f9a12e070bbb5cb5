"""int8 weights: against the same models with the rounded weights as floats."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import models
from speccascade.errors import UserError
from speccascade.importing.preparation import flat
from speccascade.models import trim
from speccascade.models.int8 import Int8
from speccascade.models.layers import product
from speccascade.models.quantisation import int8_keys, quantise, quantised, to_int8
from speccascade.sharding import active
from speccascade.sharding.layout import Layout
from speccascade.sharding.mesh import make_mesh
from tests import random_params
from tests.jitted import forward

COMMON = {"vocab_size": 42, "d_model": 16, "num_layers": 1, "head_dim": 4, "d_ff": 24}
FAMILIES = {
    "decoder_only": {**COMMON, "num_heads": 4, "num_kv_heads": 2, "qkv_bias": True},
    "encoder_decoder": {**COMMON, "num_heads": 4, "num_decoder_layers": 1},
}
TOKENS = np.array([[3, 32, 0, 7, 11], [4, 9, 41, 1, 2]], np.int32)
LENGTHS = np.array([3, 1], np.int32)
PRODUCT = jax.jit(product, static_argnums=2)


def build(family, **changes):
    model = models.build({"family": family, **FAMILIES[family], **changes})
    return model, random_params.of(model)


def is_int8(x):
    return isinstance(x, Int8)


@jax.jit
def restored(params):
    """Returns parameters whose int8 matrices are floats again."""
    return jax.tree.map(
        lambda x: x.astype(jnp.float32) if is_int8(x) else x, params, is_leaf=is_int8
    )


def test_rows_are_rounded_to_the_nearest_of_255_numbers():
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((7, 50)).astype(np.float32) * 10.0 ** np.arange(-4, 3)[:, None]
    matrix[3] = 0
    found = to_int8(matrix)
    values, scale = np.asarray(found.values, np.float32), np.asarray(found.scale)
    assert found.values.dtype == jnp.int8 and scale.dtype == np.float32
    largest = np.abs(matrix).max(1)
    np.testing.assert_array_equal(np.abs(values).max(1), np.where(largest > 0, 127, 0))
    np.testing.assert_allclose(scale, np.where(largest > 0, largest / 127, 1), rtol=1e-6)
    error = np.abs(values * scale[:, None] - matrix)
    assert np.all(error <= scale[:, None] * 0.5001)
    widened = np.asarray(restored(found))
    np.testing.assert_array_equal(widened, values * scale[:, None])
    rows = np.array([5, 1])
    np.testing.assert_array_equal(
        jax.jit(lambda x: x[rows].astype(jnp.float32))(found), widened[rows]
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(16,), (1, 16), (3, 5, 16), (80, 16)])
def test_a_product_is_that_of_the_rounded_matrix(shape, dtype):
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape).astype(jnp.dtype(dtype))
    matrix = to_int8(rng.standard_normal((9, 16)).astype(np.float32))
    found = PRODUCT(x, matrix, jnp.float32)
    assert found.dtype == jnp.float32
    expected = x.astype(np.float64) @ np.asarray(restored(matrix), np.float64).T
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_rounded_weights(family, tied):
    model, params = build(family, tie_embeddings=tied)
    small, rounded = quantise(model, params)
    assert models.describe(small) == {**models.describe(model), "weight_dtype": "int8"}
    logits = forward(small, rounded, TOKENS, LENGTHS)
    expected = forward(model, restored(rounded), TOKENS, LENGTHS)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    exact = np.asarray(forward(model, params, TOKENS, LENGTHS))
    assert 1e-4 < np.abs(np.asarray(logits) - exact).max() < 0.2 * np.abs(exact).max()
    assert quantise(small, rounded) == (small, rounded)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_as_many_bytes_as_their_shapes_say(family):
    model, params = build(family, tie_embeddings=False, dtype="bfloat16", param_dtype="bfloat16")
    small, rounded = quantise(model, params)
    shapes = jax.eval_shape(small.init, jax.random.key(0))
    assert jax.tree.structure(shapes) == jax.tree.structure(rounded)
    for key, leaf in flat(shapes).items():
        made = flat(rounded)[key]
        assert (made.shape, made.dtype) == (leaf.shape, leaf.dtype), key
    matrices = {k: x for k, x in flat(params).items() if x.ndim == 2 and "relative" not in k}
    assert int8_keys(small) == matrices.keys() and not int8_keys(model)
    saved = sum(x.size - 4 * x.shape[0] for x in matrices.values())  # one byte each, and a scale

    def size(tree):
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))

    assert size(shapes) == size(params) - saved


@pytest.mark.parametrize("family", FAMILIES)
def test_fresh_parameters_are_those_of_the_family_rounded(family):
    model, _ = build(family)
    small = quantised(model)
    params, exact = jax.jit(lambda key: (small.init(key), model.init(key)))(jax.random.key(3))
    expected = restored(quantise(model, exact)[1])
    for key, leaf in flat(restored(params)).items():
        np.testing.assert_allclose(leaf, flat(expected)[key], rtol=1e-5, err_msg=key)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_is_cut_away(family):
    small, rounded = quantise(*build(family, tie_embeddings=False))
    smaller, cut = trim.to_vocabulary(small, rounded, 33)
    tokens = TOKENS % 33
    np.testing.assert_allclose(
        forward(smaller, cut, tokens, LENGTHS),
        np.asarray(forward(small, rounded, tokens, LENGTHS))[..., :33],
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_logits_are_the_same_on_a_mesh(family):
    small, rounded = quantise(*build(family, tie_embeddings=False))
    placement = Layout(make_mesh({"model": 2}, jax.devices()[:2])).of("expert", small)
    laid = jax.device_put(rounded, placement.params(small))
    shards = {k: x.sharding.shard_shape(x.shape) for k, x in flat(laid).items()}
    assert shards["embedding/values"] == (21, 16) and shards["embedding/scale"] == (21,)
    down = next(k for k in shards if k.endswith("mlp_0/down/weight/values"))
    assert shards[down] == (16, 12) and shards[down.replace("values", "scale")] == (16,)

    def on_the_mesh(params, tokens, lengths):
        with active.use(placement):
            return small.forward(params, tokens, lengths)

    found = jax.jit(on_the_mesh)(laid, TOKENS, LENGTHS)
    expected = forward(small, rounded, TOKENS, LENGTHS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_a_decode_loop_keeps_the_weights_int8_on_tpu():
    from jax.experimental import topologies

    chips = topologies.get_topology_desc(topology_name="v5e:2x2", platform="tpu").devices
    one = jax.sharding.SingleDeviceSharding(chips[0])
    size = 1024

    def loop(w, x):
        def body(state):
            return state[0] + 1, jnp.tanh(product(state[1], w))

        return jax.lax.while_loop(lambda state: state[0] < 9, body, (0, x))

    def shape(dtype, *sizes):
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=one)

    w = Int8(shape(jnp.int8, size, size), shape(jnp.float32, size))
    compiled = jax.jit(loop).lower(w, shape(jnp.bfloat16, 8, size)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < size * size


def test_an_unknown_dtype_of_weights():
    with pytest.raises(UserError, match="weight_dtype='int4' is unknown; choose one of: None, in"):
        build("decoder_only", weight_dtype="int4")
