"""Training on a mesh: the losses of one device in every layout, and nothing whole in between."""

import dataclasses
import functools
import importlib.util

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from speccascade import models
from speccascade.errors import UserError
from speccascade.models.loading import default_sharding
from speccascade.plan import topology
from speccascade.sharding import for_training, hlo
from speccascade.training import loop, step
from speccascade.training.data import Problems
from speccascade.training.objective import Fixed, Objective, evaluate
from speccascade.training.optimizer import make_optimizer
from speccascade.training.step import Step
from tests import random_params
from tests.training import tiny

# No two sizes are one; all divide over eight devices.
KNOWN, VOCAB, D, FF = 101, 104, 16, 24
SIZES = {"vocab_size": VOCAB, "d_model": D, "num_heads": 8, "head_dim": 4, "d_ff": FF}
DESCRIPTIONS = {
    "decoder_only": {**SIZES, "num_layers": 2, "num_kv_heads": 2, "tie_embeddings": False},
    "encoder_decoder": {**SIZES, "num_layers": 2, "num_decoder_layers": 1, "num_buckets": 8},
}
LAYOUTS = {
    "data": {"data": 8},
    "fsdp": {"data": 1, "fsdp": 8},
    "model": {"data": 1, "model": 8},
    "mixed": {"data": 2, "fsdp": 2, "model": 2},
}
ROWS, STEPS = 16, 3


def model_of(family, **changes):
    return models.build({"family": family, **DESCRIPTIONS[family], **changes})


def problems():
    """Texts of many lengths, so that parts of a batch have unequally many tokens."""
    rng = np.random.default_rng(0)
    prompt = rng.integers(1, 9, STEPS * ROWS)
    length = prompt + np.resize([1, 9, 2, 4], STEPS * ROWS)
    tokens = rng.integers(2, KNOWN, (STEPS * ROWS, 18)).astype(np.int32)
    return Problems(tokens, prompt.astype(np.int32), length.astype(np.int32))


def optimizer(name, layout=None, **changes):
    train = {**tiny.get_config(name).train, "warmup_steps": 1, "schedule": "constant", **changes}
    return make_optimizer(ml_collections.FrozenConfigDict(train), layout)


def losses(
    family, mesh=None, accumulate=1, name="adamw", taught=False, dtype="float32", **changes
):
    """Returns what a few steps log on a mesh, [STEPS, 3], and of one with a teacher the figures."""
    layout, model = for_training(mesh), model_of(family, dtype=dtype, **changes)
    teacher = model_of(family, num_heads=4, num_kv_heads=1) if family == "decoder_only" else model
    objective = Objective(model, KNOWN, 0.2 if family == "decoder_only" else 0.0)
    fixed = None
    if taught:
        how = {"teacher": teacher, "distance": "forward_kl", "distill_weight": 0.5}
        objective, fixed = dataclasses.replace(objective, **how), init(teacher, 1)
        if layout is not None:
            fixed = jax.device_put(fixed, layout.of("expert", teacher).params(teacher))
        fixed = Fixed(fixed)
    how = Step(model, objective, optimizer(name, layout), layout, accumulate)
    params, state = how.start(jax.tree.map(jnp.copy, init(model, 0)))  # a step takes them
    held, found = problems(), []
    for number in range(STEPS):
        batch = objective.batch(held, np.arange(number * ROWS, (number + 1) * ROWS))
        params, state, logged = how(params, state, batch, fixed, jax.random.key(number))
        found.append([float(logged[key]) for key in ("loss", "answer_nll", "grad_norm")])
    if layout is not None:
        where = how.placement.params(model)
        same = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), params, where)
        assert all(jax.tree.leaves(same))
    figures = evaluate(model, params, held, ROWS, KNOWN, layout) if taught else {}
    return np.array(found), figures


@functools.cache
def init(model, seed):
    return jax.jit(model.init)(jax.random.key(seed))


one_device = functools.cache(losses)


def check_alike(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-5)
    for figure, value in expected[1].items():
        np.testing.assert_allclose(found[1][figure], value, rtol=1e-5, err_msg=figure)


def test_losses_are_those_of_one_device():
    """On a mixed mesh, in two parts."""
    found = losses("decoder_only", LAYOUTS["mixed"], accumulate=2)
    check_alike(found, one_device("decoder_only"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "adafactor"])
@pytest.mark.parametrize("mesh", LAYOUTS)
@pytest.mark.parametrize("family", DESCRIPTIONS)
def test_losses_are_those_of_one_device_in_every_layout(family, mesh, name):
    found = losses(family, LAYOUTS[mesh], name=name, taught=True)
    check_alike(found, one_device(family, name=name, taught=True))


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["mixed", "fsdp"])
def test_routed_layers_learn_on_a_mesh_as_on_one_device(mesh):
    routing = {"branches": 4, "chosen": 2, "d_ff": FF, "shared_d_ff": 16, "pattern": [False, True]}
    found = losses("decoder_only", LAYOUTS[mesh], accumulate=2, routing=routing)
    check_alike(found, losses("decoder_only", routing=routing))


@pytest.mark.slow
@pytest.mark.parametrize("family", DESCRIPTIONS)
def test_bfloat16_computes_with_float32_masters_on_a_mesh(family):
    found = losses(family, LAYOUTS["mixed"], accumulate=2, dtype="bfloat16")
    expected = one_device(family, dtype="bfloat16")
    np.testing.assert_allclose(found[0][:, :2], expected[0][:, :2], rtol=2e-2)


def test_without_a_mesh_a_step_begins_where_a_teacher_is_read_to():
    model, third = model_of("decoder_only"), jax.devices()[3]
    how = Step(model, Objective(model, KNOWN, 0.0), optimizer("adamw"))
    with jax.default_device(third):
        assert default_sharding("", ()).device_set == {third}
        begun = how.start(random_params.of(model))
    assert all(x.sharding.device_set == {third} for x in jax.tree.leaves(begun))


# ---- parts of a batch ----


@pytest.mark.slow
@pytest.mark.parametrize("family", DESCRIPTIONS)
def test_parts_give_the_gradients_of_the_whole_batch(family):
    model = model_of(family)
    objective = Objective(model, KNOWN, 0.2 if family == "decoder_only" else 0.0)
    batch, params = objective.batch(problems(), np.arange(ROWS)), init(model, 0)

    def gradients(batch, accumulate):
        how = Step(model, objective, optimizer("adamw"), None, accumulate)
        return step._gradients(
            params, step.put(batch, None, accumulate), None, jax.random.key(0), how=how
        )

    (whole, logged), (parts, logged_too) = gradients(batch, 1), gradients(batch, 4)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(logged_too["loss"], logged["loss"], rtol=1e-6)
    # The parts differ in tokens: a mean of their means is another one.
    order = np.argsort(problems().length[:ROWS] - problems().prompt_length[:ROWS])
    batch = {key: value[order] for key, value in batch.items()}
    quarters = [{k: v[at : at + 4] for k, v in batch.items()} for at in range(0, ROWS, 4)]
    means = [float(gradients(quarter, 1)[1]["answer_nll"]) for quarter in quarters]
    assert abs(np.mean(means) - logged["answer_nll"]) > 1e-3
    np.testing.assert_allclose(
        gradients(batch, 4)[1]["answer_nll"], logged["answer_nll"], rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", DESCRIPTIONS)
def test_layers_that_are_computed_again_give_the_same_gradients(family):
    model = model_of(family)
    again = dataclasses.replace(model, remat=True)
    assert models.describe(again) == models.describe(model)
    params, batch = init(model, 0), problems().answers(np.arange(4))

    def of(model):
        objective = Objective(model, KNOWN)
        totals = objective.totals(batch)

        def loss(params):
            return objective(params, batch, totals, None, None)[0]

        return jax.jit(jax.grad(loss))(params), jax.make_jaxpr(jax.grad(loss))(params)

    (kept, plain), (made, checkpointed) = of(model), of(again)
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(made), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-7)
    layers = sum(v for k, v in DESCRIPTIONS[family].items() if k.endswith("layers"))
    assert str(checkpointed).count("remat2[") + str(checkpointed).count("checkpoint[") >= layers
    assert "checkpoint[" not in str(plain) and "remat2[" not in str(plain)


# ---- the optimizers ----


def test_adafactor_is_that_of_t5():
    params = {"embedding": np.ones((3, 2)), "weight": np.full((160, 130), 0.1), "scale": np.ones(4)}
    params = jax.tree.map(lambda x: x.astype(np.float32), params)
    made, library = optimizer("adafactor", **T5), optax.adafactor(1e-3)
    state, expected = made.init(params), library.init(params)
    rng = np.random.default_rng(0)
    update, library_update = jax.jit(made.update), jax.jit(library.update)
    for _ in range(3):
        grads = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params)
        updates, state = update(grads, state, params)
        wanted, expected = library_update(grads, expected, params)
        for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
    # Rows and columns, not a number for each weight.
    sizes = [x.size for x in jax.tree.leaves(state)]
    assert 160 in sizes and 130 in sizes and max(sizes) == 160


T5 = {"learning_rate": 1e-3, "weight_decay": 0.0, "warmup_steps": 0, "clip_norm": 1e9}


def test_what_an_optimizer_keeps_lies_as_its_parameters():
    layout, model = for_training(LAYOUTS["mixed"]), model_of("decoder_only")
    how = Step(model, Objective(model, KNOWN), optimizer("adamw", layout), layout)
    params, state = how.start(init(model, 0))
    up = params["mlp_0"]["up"]["weight"]
    assert up.sharding.spec == P("model", "fsdp") and up.sharding.shard_shape(up.shape) == (12, 8)
    moments = [x for x in jax.tree.leaves(state) if x.shape == up.shape]
    assert len(moments) == 2 * 4  # first and second, of up and gate in two layers
    assert all(x.sharding == up.sharding for x in moments)


# ---- what does not fit ----


@pytest.mark.parametrize(
    ("mesh", "train", "message"),
    [
        ({"model": 8}, {"optimizer": "muon"}, "muon needs whole matrices, which mesh data=1, mod"),
        ({"data": 8}, {"batch_size": 12}, "batch_size=12 must be a multiple of 8, for train.accu"),
        ({"fsdp": 8}, {"batch_size": 12}, "batch_size=12 must be a multiple of 8, for train.accu"),
        ({"data": 4, "model": 2}, {"accumulate": 3, "batch_size": 16}, "must be a multiple of 12"),
        (None, {"accumulate": 3}, "train.batch_size=4 must be a multiple of 3, for train.accum"),
        ({"model": 8}, {}, "mesh: 2 heads do not divide over 8 devices: 2 parameters lie whole; g"),
        ({"model": 3}, {}, "mesh model=3 does not use up the 8 devices"),
        (None, {"accumulate": 0}, "train.accumulate=0 must be at least 1"),
        (None, {"remat": "yes"}, "train.remat='yes' must be True or False"),
        (None, {"schedule": "cosine"}, "train.schedule='cosine' is unknown; choose one of: linear"),
    ],
)
def test_what_does_not_divide_is_told_before_anything_is_written(tmp_path, mesh, train, message):
    config = tiny.get_config()
    config.train.update(train)
    config.mesh = mesh
    with pytest.raises(UserError, match=message):
        loop.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_muon_may_share_out_rows():
    optimizer("muon", for_training({"data": 8}))


# ---- what the compiled programs exchange ----


def programmed():
    """Returns a model of which every axis divides: fewer key-value heads would lie whole."""
    return model_of("decoder_only", dtype="bfloat16", num_kv_heads=8)


def programs(layout):
    """Returns both programs of a step, compiled for a layout whose devices need not be there."""
    model = programmed()
    objective = Objective(model, KNOWN, 0.2)
    how = Step(model, objective, optimizer("adamw", layout), layout, 2)
    batch = objective.batch(problems(), np.arange(ROWS))
    return [lowered.compile() for lowered in how.lower(batch)]


@pytest.mark.slow
@pytest.mark.parametrize("mesh", LAYOUTS)
def test_weights_are_gathered_along_fsdp_alone(mesh):
    check_programs(for_training(LAYOUTS[mesh]))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.parametrize("name", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
@pytest.mark.parametrize("mesh", [{"data": 2, "model": 2}, {"data": 1, "fsdp": 2, "model": 2}])
def test_the_same_compiled_for_a_tpu(name, mesh):
    check_programs(for_training(mesh, topology.describe(name).devices))


def check_programs(layout):
    gradients, update = (program.as_text() for program in programs(layout))
    sizes = {"data": 1, "fsdp": 1, "model": 1, **layout.mesh.shape}
    check_gathers(gradients, sizes)
    assert {c.kind for c in hlo.collectives(update)} <= {"all-reduce"}
    assert all(array.shape == () for c in hlo.collectives(update) for array in c.arrays)


def check_gathers(text, sizes):
    """Raises AssertionError where weights get to a device that `fsdp` does not ask for."""
    shapes = jax.tree.leaves(jax.eval_shape(programmed().init, jax.random.key(0)))
    ways, cut = sizes["model"], sizes["fsdp"]

    def parts(*cuts):  # `model` cuts one axis of a matrix, `fsdp` the other
        matrices = (x.shape for x in shapes if x.ndim == 2)
        return {(a // by[0], b // by[1]) for a, b in matrices for by in (cuts, cuts[::-1])}

    seen = 0
    for found in hlo.collectives(text):
        if found.kind in ("all-reduce", "reduce-scatter"):  # of activations and gradients
            continue
        for array in found.arrays:
            if len(array.shape) != 2:  # an activation, [B, S, ...]: no more than one stream
                assert array.bytes <= 4 * ROWS * 18 * D, found
                continue
            seen += 1
            if found.kind == "all-gather":
                assert found.group == cut and array.shape in parts(ways, 1), found
            else:  # a product that has its weights passed on shard by shard
                assert found.kind == "collective-permute", found
                assert array.shape in parts(ways, cut), found
    assert (seen > 0) == (sizes["fsdp"] > 1)
