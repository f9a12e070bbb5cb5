"""Adapters of low rank beside frozen weights."""

import os
import signal
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from speccascade import models, pairs
from speccascade.errors import UserError
from speccascade.models import layers
from speccascade.models.low_rank import LowRank
from speccascade.training import adapters, loop, memory
from speccascade.training.objective import Fixed, Objective
from speccascade.training.step import Step
from speccascade.workdir import checkpoints
from speccascade.workdir.parameter_files import flat
from speccascade.workdir.training_metrics import read_metrics
from tests.sharding import test_hosts
from tests.training import adapted, times, tiny
from tests.training.adapted import LORA
from tests.training.test_on_a_mesh import KNOWN, init, model_of, optimizer, problems


def test_a_product_is_that_with_the_sum_of_both():
    """Also where bfloat16 would round the sum to the frozen matrix."""
    rng = np.random.default_rng(0)
    x, a, b = (rng.normal(size=size).astype(np.float32) for size in ((5, 16), (3, 16), (8, 3)))
    weight = jnp.asarray(rng.uniform(1, 2, (8, 16)), jnp.bfloat16)
    x = np.asarray(jnp.asarray(x, jnp.bfloat16), np.float32)
    small = LowRank(weight, jnp.asarray(a), jnp.asarray(b), 2.0**-14)
    assert jnp.array_equal(small.whole(), weight) and small.whole().dtype == jnp.bfloat16
    update = x.astype(np.float64) @ (2.0**-14 * b.astype(np.float64) @ a).T
    given = jnp.asarray(x, jnp.bfloat16)
    found = layers.product(given, small, jnp.float32)
    found -= layers.product(given, weight, jnp.float32)
    np.testing.assert_allclose(found, update, rtol=0.05, atol=2e-5)  # b and a in bfloat16
    large = LowRank(weight.astype(jnp.float32), small.a, small.b, 0.5)
    expected = np.float64(weight) + 0.5 * b.astype(np.float64) @ a
    np.testing.assert_allclose(large.whole(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "family", ["decoder_only", pytest.param("encoder_decoder", marks=pytest.mark.slow)]
)
def test_a_model_beside_adapters_is_the_merged_one(family):
    model, made = model_of(family), adapters.read(LORA)
    weights, rng = init(model, 0), np.random.default_rng(0)
    first = made.first(weights, 0)
    # Nothing but the targets, in every layer.
    wanted = [k for k in flat(weights) if f"/{k}".split("/")[-2] in LORA["targets"]]
    assert list(flat(first)) == [f"{key}/{part}" for key in wanted for part in "ab"]
    batch = problems().answers(np.arange(4))
    given = batch["prompt"], batch["prompt_length"], batch["answer"]
    score = jax.jit(model.answer_logits)
    np.testing.assert_allclose(
        score(made.beside(weights, first), *given), score(weights, *given), atol=1e-5
    )
    some = jax.tree.map(lambda x: x + rng.normal(size=x.shape).astype(np.float32) / 9, first)
    merged = made.merged(weights, some)
    assert jax.tree.structure(merged) == jax.tree.structure(weights)
    found, expected = score(made.beside(weights, some), *given), score(merged, *given)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected - score(weights, *given)).max() > 1e-2
    # At first only b learns: a has what b makes of it, nothing.
    objective = Objective(model, KNOWN, adapters=made)
    how = objective.totals(batch), Fixed(weights=weights), None
    grads = jax.jit(jax.grad(lambda p: objective(p, batch, *how)[0]))(first)
    for key, grad in flat(grads).items():
        assert (np.abs(grad).max() > 0) == key.endswith("/b"), key


def config(source, **changes):
    made = adapted.get_config(source, "bfloat16")
    with made.ignore_type():
        made.train.update(changes)
    return made


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 0}, "train.lora.rank=0 must be at least 1"),
        ({"alpha": 0.0}, "train.lora.alpha=0.0 must be above 0"),
        ({"targets": "query"}, "train.lora.targets='query' must be names of matrices"),
        ({"targets": ()}, r"train.lora.targets=\(\) must be names"),
        ({"dropout": 0.1}, "unknown field train.lora.dropout"),
    ],
    ids=repr,
)
def test_fields_out_of_range(tmp_path, lora, message):
    made = config("absent", lora={**LORA, **lora})
    with pytest.raises(UserError, match=message):
        loop.train(made, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_there_must_be_weights(tmp_path):
    made = tiny.get_config()
    made.train.lora = dict(LORA)
    with pytest.raises(UserError, match="train.lora is beside the weights of a model; name it by"):
        loop.train(made, str(tmp_path / "run"))


def test_targets_are_matrices_of_the_layers():
    weights = models.shapes(model_of("decoder_only"))
    made = adapters.Adapters(2, 4.0, ("head",))
    with pytest.raises(
        UserError, match="targets=head is no .*: down, gate, key, output, query, up"
    ):
        made.first(weights, 0)


def test_memory_is_that_of_the_weights_once():
    """Of what is trained there are besides two moments and gradients."""
    model, made = model_of("decoder_only"), adapters.read(LORA)
    c = {**tiny.get_config().train, "lora": LORA}
    found = memory.needs(
        loop.make_step(ml_collections.FrozenConfigDict(c), model, KNOWN, None, None)
    )
    weights = init(model, 0)
    own = sum(x.nbytes for x in jax.tree.leaves(made.first(weights, 0)))
    assert found.weights == sum(x.nbytes for x in jax.tree.leaves(weights)) + own
    assert found.gradients == own and 2 * own <= found.optimizer < 2 * own + 64


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("adapters") / "source")
    made = tiny.get_config()
    made.train.update(num_steps=2, eval_every=2, checkpoint_every=2)
    loop.train(made, folder)
    return folder


@pytest.fixture(scope="module")
def tuned(source, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("adapters") / "tuned")
    loop.train(config(source, num_steps=12), folder)
    return folder


def logged(workdir):
    return times.without(read_metrics(os.path.join(workdir, "metrics.jsonl")))


@pytest.mark.slow
def test_they_learn_in_bfloat16_what_another_model_has_beyond_the_weights():
    model, made = model_of("decoder_only", dtype="bfloat16"), adapters.read(LORA)
    weights, rng = init(model, 0), np.random.default_rng(0)
    first = made.first(weights, 0)
    other = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) / 4, first)
    teacher = made.merged(weights, other)
    how = {"teacher": model, "distance": "forward_kl", "distill_weight": 1.0}
    objective = Objective(model, KNOWN, adapters=made, **how)
    step = Step(model, objective, optimizer("adamw", learning_rate=2e-2, weight_decay=0.0))
    params, state = step.start(first)
    held, losses = problems(), []
    for number in range(150):
        batch = objective.batch(held, np.arange(16) + 16 * (number % 3))
        given = params, state, batch, Fixed(teacher, weights), jax.random.key(0)
        params, state, found = step(*given)
        losses.append(float(found["distill"]))
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) / 10, (losses[:3], losses[-3:])


@pytest.mark.slow
def test_the_workdir_becomes_that_of_a_model(source, tuned):
    before, after = (checkpoints.load_model(folder) for folder in (source, tuned))
    assert after[0].config.param_dtype == after[0].config.dtype == "bfloat16"
    differ = [
        key
        for key, value in flat(after[1]).items()
        if not np.array_equal(value, flat(before[1])[key].astype(jnp.bfloat16))
    ]
    assert {key.split("/")[-2] for key in differ} == set(LORA["targets"])
    assert all(value.dtype == jnp.bfloat16 for value in flat(after[1]).values())
    # Of the training only the adapters are kept.
    args = checkpoints.ocp.args.StandardRestore()
    with checkpoints.manager(os.path.join(tuned, "adapters"), read_only=True) as saved:
        found = saved.restore(12, args=checkpoints.ocp.args.Composite(params=args))["params"]
    assert all(key.endswith(("/a", "/b")) for key in flat(found))
    pairs.load({"drafter": source, "expert": tuned})
    loop.train(config(source, num_steps=12), tuned)  # nothing is left to do


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(source, tuned, tmp_path, monkeypatch):
    taken, call = [], Step.__call__

    def interrupted(self, *args):
        taken.append(1)
        if len(taken) == 6:
            raise KeyboardInterrupt
        return call(self, *args)

    monkeypatch.setattr(Step, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config(source, num_steps=12), str(tmp_path))
    monkeypatch.undo()
    assert not (tmp_path / "checkpoints").exists()
    loop.train(config(source, num_steps=12), str(tmp_path))
    assert logged(tmp_path) == logged(tuned)


@pytest.fixture(scope="module")
def on_one_device(source, tmp_path_factory):
    """A whole run in float32."""
    folder = str(tmp_path_factory.mktemp("adapters") / "one_device")
    loop.train(adapted.get_config(source), folder)
    return folder


def check_alike(expected, found):
    """Asserts that two runs logged the same and came to the same model, whoever computed them."""
    for row, other in zip(logged(expected), logged(found), strict=True):
        for name, value in row.items():
            np.testing.assert_allclose(other[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    wanted, weights = (flat(checkpoints.load_model(each)[1]) for each in (expected, found))
    for name, value in wanted.items():
        np.testing.assert_allclose(weights[name], value, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_on_a_mesh_losses_are_those_of_one_device(source, on_one_device, tmp_path):
    made = adapted.get_config(source)
    made.train.remat = True
    made.mesh = {"data": 2, "fsdp": 2, "model": 2}
    loop.train(made, str(tmp_path))
    check_alike(on_one_device, str(tmp_path))


def by_two_processes(source, workdir):
    """Starts two processes of two devices each."""
    flags = f"--config={adapted.__file__}:{source}", '--config.mesh={"data": 2, "fsdp": 2}'
    command = [sys.executable, "scripts/train.py", *flags, f"--workdir={workdir}"]
    return test_hosts.start(*test_hosts.LAUNCH, *command)


@pytest.mark.slow
def test_two_processes_do_what_one_device_does(source, on_one_device, tmp_path):
    code, out, err = test_hosts.finish(by_two_processes(source, tmp_path))
    assert code == 0, err
    assert len(out) == 1 and out[0].startswith("[0] validation_nll ")
    check_alike(on_one_device, str(tmp_path))
    code, _, err = test_hosts.finish(by_two_processes(source, tmp_path))  # nothing is left to do
    assert code == 0, err


@pytest.mark.slow
def test_a_killed_process_costs_no_more_than_time(source, on_one_device, tmp_path):
    run = by_two_processes(source, tmp_path)
    test_hosts.wait_for(lambda: list((tmp_path / "adapters" / "checkpoints").glob("2*")), run)
    os.kill(test_hosts.child(run.pid, "--process_id=1"), signal.SIGKILL)
    code, _, err = test_hosts.finish(run)
    assert code != 0 and err[-1].startswith("error: process 1 was killed by SIGKILL"), err[-1]
    assert not (tmp_path / "checkpoints").exists()
    code, _, err = test_hosts.finish(by_two_processes(source, tmp_path))
    assert code == 0, err
    check_alike(on_one_device, str(tmp_path))
