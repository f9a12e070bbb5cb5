"""Routed feed-forward layers: against a sum over all branches, and whatever the neighbours are."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import models
from speccascade.errors import UserError
from speccascade.models.feed_forward import RoutedMLP, _tiles
from speccascade.models.int8 import Int8
from speccascade.models.quantisation import int8_keys, quantise
from speccascade.models.shrink import shrink
from speccascade.models.transformer_config import ACTIVATIONS
from speccascade.sharding import active, for_training
from speccascade.training import adapters
from speccascade.workdir import parameter_files
from tests import random_params
from tests.smallest_model import MODEL

ROUTING = {"branches": 6, "chosen": 2, "d_ff": 8, "shared_d_ff": 4, "pattern": [True, False]}
ROUTED = {**MODEL, "num_layers": 2, "routing": ROUTING}
ROWS, LENGTH, WIDTH = 4, 5, MODEL["d_model"]


def build(**routing):
    model = models.build({**ROUTED, "routing": {**ROUTING, **routing}})
    return model, random_params.of(model, scale=2.0)


@functools.cache
def layer(normalised=True):
    """Returns a routed layer as a function, its parameters, and what goes through it."""
    model, params = build(normalised=normalised)
    module = RoutedMLP(model.config, model.config.routing)
    x = np.random.default_rng(1).standard_normal((ROWS, LENGTH, WIDTH)).astype(np.float32)
    return lambda params, x: module.apply({"params": params}, x), params["mlp_0"], x


@functools.partial(jax.jit, static_argnames="normalised")
def of_all(params, x, normalised=True):
    """Returns what a layer does, as a sum over all branches."""

    def ffn(x, gate, up, down):
        return (ACTIVATIONS["silu"](x @ gate.T) * (x @ up.T)) @ down.T

    share = jax.nn.softmax(x @ params["router"].T)
    weight = jnp.where(share >= jnp.sort(share)[..., -ROUTING["chosen"], None], share, 0)
    weight = weight / weight.sum(-1, keepdims=True) if normalised else weight
    branches = zip(params["gate"], params["up"], params["down"], strict=True)
    found = sum(weight[..., i, None] * ffn(x, *branch) for i, branch in enumerate(branches))
    shared = ffn(x, *(params["shared"][name]["weight"] for name in ("gate", "up", "down")))
    return found + jax.nn.sigmoid(x @ params["shared_router"].T) * shared


def slopes(f, params, x):
    """Returns the gradient of a sum of what a layer makes, each number with a weight of its own."""
    weights = np.random.default_rng(2).standard_normal(x.shape)
    return jax.jit(jax.grad(lambda params, x: jnp.sum(f(params, x) * weights)))(params, x)


def assert_close(found, expected, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, atol), found, expected)


@pytest.mark.parametrize("normalised", [True, False])
def test_a_layer_is_the_sum_of_what_is_chosen(normalised):
    apply, params, x = layer(normalised)
    expected = of_all(params, x, normalised)
    assert np.std(expected) > 0.5
    assert_close(jax.jit(apply)(params, x), expected)


def test_its_gradients_are_those_of_the_sum():
    apply, params, x = layer()
    assert_close(slopes(apply, params, x), slopes(of_all, params, x), 1e-4)


def test_a_row_is_the_same_whatever_its_neighbours_are():
    apply, params, x = layer()
    run = jax.jit(apply)
    alone = run(params, x[:1])
    crowded = np.repeat(x[:1], ROWS, axis=0)  # all want the branches that it wants
    for neighbours in (x, crowded, np.concatenate([x[:1], 100 * x[1:]])):
        assert_close(np.asarray(run(params, neighbours))[:1], alone, 1e-6)


CHOICES = {
    "one branch": lambda rng: np.full((3, 7, 1), 4),
    "one token": lambda rng: np.array([[[5, 0]]]),
    "each its own": lambda rng: np.arange(6).reshape(1, 6, 1),
    "evenly": lambda rng: rng.permuted(np.tile(np.arange(6), (40, 5, 1)), axis=-1)[..., :2],
    "very many": lambda rng: rng.permuted(np.tile(np.arange(6), (30, 40, 1)), axis=-1)[..., :3],
}


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_has_a_row_in_a_tile_of_its_branch(name):
    chosen = CHOICES[name](np.random.default_rng(0)).astype(np.int32)
    token, slot, branch, used = map(np.asarray, jax.jit(_tiles, static_argnums=1)(chosen, 6))
    size = token.shape[1]
    assert len(np.unique(slot)) == chosen.size  # none shares its row
    np.testing.assert_array_equal(branch[slot // size], chosen)
    assert used[slot // size].all()
    tokens = np.arange(chosen.size // chosen.shape[-1]).reshape(*chosen.shape[:2], 1)
    np.testing.assert_array_equal(token.reshape(-1)[slot], np.broadcast_to(tokens, chosen.shape))
    # A branch is read no more often than its tokens need, one that nobody chose never.
    needed = -(-np.bincount(chosen.reshape(-1), minlength=6) // size)
    np.testing.assert_array_equal(np.bincount(branch[used], minlength=6), needed)


@pytest.mark.parametrize(
    ("sizes", "d_ff", "what"),
    [
        ({"data": 2, "model": 4}, 8, "values"),
        pytest.param({"data": 2, "model": 4}, 8, "int8", marks=pytest.mark.slow),
        # A mesh does not divide one row, nor twelve inner numbers over eight devices.
        pytest.param({"data": 4, "model": 2}, 8, "one row", marks=pytest.mark.slow),
        pytest.param({"data": 1, "model": 8}, 12, "gradients", marks=pytest.mark.slow),
        pytest.param({"data": 2, "fsdp": 2, "model": 2}, 8, "gradients", marks=pytest.mark.slow),
    ],
)
def test_a_mesh_computes_the_same(sizes, d_ff, what):
    model, params = build(d_ff=d_ff)
    x = layer()[2][:1] if what == "one row" else layer()[2]
    if what == "int8":
        model, params = quantise(model, params)
    placement = for_training(sizes).of("expert", model)
    laid = jax.device_put(params, placement.params(model))["mlp_0"]
    gate = laid["gate"].values if what == "int8" else laid["gate"]
    inner = d_ff if d_ff == 12 else d_ff // sizes["model"]
    assert gate.sharding.shard_shape(gate.shape)[1] == inner
    module = RoutedMLP(model.config, model.config.routing)

    def alone(params, x):
        return module.apply({"params": params}, x)

    def on_the_mesh(params, x):
        with active.use(placement):
            return alone(params, x)

    params = params["mlp_0"]
    if what == "gradients":
        assert_close(slopes(on_the_mesh, laid, x), slopes(alone, params, x), 1e-4)
    else:
        assert_close(jax.jit(on_the_mesh)(laid, x), jax.jit(alone)(params, x))


def test_int8_rounds_the_branches_and_no_router():
    model, params = build()
    small, rounded = quantise(model, params)
    keys = int8_keys(small)
    assert {"mlp_0/gate", "mlp_0/up", "mlp_0/down", "mlp_0/shared/up/weight"} <= keys
    assert not any("router" in key for key in keys)
    assert rounded["mlp_0"]["down"].scale.shape == (6, WIDTH)

    @jax.jit
    def restored(params):
        return jax.tree.map(
            lambda x: x.astype(jnp.float32) if isinstance(x, Int8) else x,
            params,
            is_leaf=lambda x: isinstance(x, Int8),
        )

    apply, exact, x = layer()
    module = RoutedMLP(small.config, small.config.routing)
    found = jax.jit(lambda params, x: module.apply({"params": params}, x))(rounded["mlp_0"], x)
    assert_close(found, of_all(restored(rounded["mlp_0"]), x))
    assert 1e-3 < np.abs(np.asarray(found) - of_all(exact, x)).mean() < 0.05


def test_an_exported_model_is_the_same(tmp_path):
    model, params = build()
    path = str(tmp_path / "expert.safetensors")
    parameter_files.write(path, params, rounded=True)
    assert_close(parameter_files.read(path, model), params, 0.05)
    assert models.build(models.describe(model)) == model


def test_layers_that_a_drafter_keeps_are_routed_as_they_were():
    model, params = build()
    small, own = shrink(model, params, layers=(1, 0))
    assert [small.config.layer_routing(i) is not None for i in range(2)] == [False, True]
    assert_close(own["mlp_1"], params["mlp_0"], 0)
    assert jax.tree.map(jnp.shape, models.shapes(small)) == jax.tree.map(jnp.shape, own)


def test_adapters_have_no_place_beside_branches():
    model, _ = build(pattern=[True], shared_d_ff=None)
    lora = adapters.read({"rank": 2, "alpha": 2, "targets": ("query", "gate")})
    with pytest.raises(UserError, match="targets=gate is no matrix .*: key, output, query, value$"):
        lora.first(models.shapes(model), 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"routing": {"branches": 4, "chosen": 5, "d_ff": 8}}, "chosen=5 is above branches=4"),
        ({"routing": {"branches": 4, "chosen": 0, "d_ff": 8}}, "routing chosen=0 must be at least"),
        ({"routing": {"branches": 4, "d_ff": 8}}, "routing lacks chosen"),
        ({"routing": {**ROUTING, "experts": 8}}, "routing has unknown fields experts; known: br"),
        ({"routing": {**ROUTING, "d_ff": "wide"}}, "routing.d_ff"),
        ({"routing": {**ROUTING, "pattern": []}}, "routing pattern is empty"),
        ({"routing": ROUTING, "mlp_bias": True}, "give mlp_bias=False"),
    ],
)
def test_a_bad_description_is_one_clear_line(change, message):
    with pytest.raises(UserError, match="^[^\n]+$") as caught:
        models.build({**MODEL, **change})
    assert message in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.parametrize("weights", [None, "int8"])
def test_a_decode_loop_copies_no_branch_on_tpu(weights):
    from jax.experimental import topologies

    chips = topologies.get_topology_desc(topology_name="v5e:2x2", platform="tpu").devices
    one = jax.sharding.SingleDeviceSharding(chips[0])
    sizes = {"d_model": 1024, "routing": {"branches": 8, "chosen": 2, "d_ff": 2048}}
    dtypes = {"dtype": "bfloat16", "param_dtype": "bfloat16", "weight_dtype": weights}
    model = models.build({**MODEL, **sizes, **dtypes})
    module = RoutedMLP(model.config, model.config.routing)

    def loop(params, x):
        def body(state):
            return state[0] + 1, jnp.tanh(module.apply({"params": params}, state[1]))

        return jax.lax.while_loop(lambda state: state[0] < 9, body, (0, x))

    params, x = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one),
        (models.shapes(model)["mlp_0"], jax.ShapeDtypeStruct((2, 5, 1024), jnp.bfloat16)),
    )
    compiled = jax.jit(loop).lower(params, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1024 * 2048  # a branch's int8 matrix
