"""The moving average of parameters: by hand, on a mesh, and through a stop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import models
from speccascade.errors import UserError
from speccascade.sharding import for_training
from speccascade.training import loop
from speccascade.training.data import Problems
from speccascade.training.objective import Objective
from speccascade.training.step import Step
from speccascade.workdir import checkpoints
from speccascade.workdir.training_metrics import read_metrics
from tests.training import times, tiny
from tests.training.test_on_a_mesh import init, optimizer

MODEL = models.build(
    {
        "family": "decoder_only",
        "vocab_size": 24,
        "d_model": 8,
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 2,
        "head_dim": 4,
        "d_ff": 8,
    }
)
DECAY, STEPS = 0.3, 5


def taken(decay, mesh=None):
    """Returns the parameters after each step, and the last state."""
    layout = for_training(mesh)
    objective = Objective(MODEL, 24, 0.5)
    how = Step(MODEL, objective, optimizer("adamw", layout), layout, 1, decay)
    params, state = how.start(jax.tree.map(jnp.copy, init(MODEL, 0)))
    tokens = np.random.default_rng(0).integers(2, 24, (4, 9)).astype(np.int32)
    held = Problems(tokens, np.full(4, 3), np.full(4, 9))
    found = [jax.tree.map(np.array, params)]
    for number in range(STEPS):
        batch = objective.batch(held, np.arange(4))
        params, state, _ = how(params, state, batch, None, jax.random.key(number))
        found.append(jax.tree.map(np.array, params))
    return found, state


plain = functools.cache(taken)


def check(found, expected, **how):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **how)


def test_it_is_what_it_is_by_hand():
    (trained, _), (averaged, state) = plain(0.0), plain(DECAY)
    check(state["trained"], trained[-1], rtol=1e-6, atol=1e-7)  # steps are those without it
    expected = trained[0]
    for number, params in enumerate(trained[1:], 1):
        decay = min(DECAY, (1 + number) / (10 + number))
        expected = jax.tree.map(lambda a, x, d=decay: d * a + (1 - d) * x, expected, params)
        check(averaged[number], expected, rtol=1e-5, atol=1e-6)
    assert DECAY < (1 + STEPS) / (10 + STEPS)  # both kinds of decay were met
    assert float(jnp.abs(averaged[-1]["embedding"] - trained[-1]["embedding"]).max()) > 1e-4


@pytest.mark.slow
def test_on_a_mesh_it_is_the_same():
    found, state = taken(DECAY, {"data": 2, "fsdp": 2, "model": 2})
    check(found[-1], plain(DECAY)[0][-1], rtol=1e-5, atol=1e-5)
    trained = state["trained"]["mlp_0"]["up"]["weight"]
    assert trained.sharding.shard_shape(trained.shape) == (4, 4)


@pytest.mark.slow
def test_it_goes_on_after_a_stop(tmp_path, monkeypatch):
    config = tiny.get_config()
    config.train.update(num_steps=4, eval_every=2, checkpoint_every=2, ema_decay=DECAY)
    logged = [loop.train(config, str(tmp_path / "whole"))]
    step, count = Step.__call__, []

    def interrupted(self, *args):
        count.append(1)
        if len(count) == 4:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config, str(tmp_path / "stopped"))
    logged.append(loop.train(config, str(tmp_path / "stopped")))
    assert logged[0] == logged[1]
    names = ("whole", "stopped")
    rows = [times.without(read_metrics(str(tmp_path / w / "metrics.jsonl"))) for w in names]
    assert rows[0] == rows[1]
    kept = [checkpoints.load_model(str(tmp_path / w))[1] for w in names]
    check(kept[0], kept[1], rtol=0)
    config.train.ema_decay = 0.0
    loop.train(config, str(tmp_path / "plain"))
    other = checkpoints.load_model(str(tmp_path / "plain"))[1]
    assert np.abs(other["embedding"] - kept[0]["embedding"]).max() > 1e-5


def test_a_decay_of_one_is_refused(tmp_path):
    config = tiny.get_config()
    config.train.ema_decay = 1.0
    with pytest.raises(UserError, match=r"train\.ema_decay=1\.0 must be at least 0 and below 1"):
        loop.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
