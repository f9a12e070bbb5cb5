"""Checkpoints are written while training goes on; what is on the disk is whole at any moment."""

import functools
import itertools
import os
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils.epath import backend

from speccascade.errors import UserError
from speccascade.training import steps
from speccascade.training.step import Work
from speccascade.workdir import checkpoints
from speccascade.workdir.training_metrics import read_metrics
from tests.training import times

COUNTS = {"num_steps": 8, "log_every": 1, "eval_every": 8, "checkpoint_every": 2}


class Gate:
    """Keeps the last act of a save, the renaming of its folder, waiting."""

    def __init__(self, monkeypatch):
        self.open, self.reached = threading.Event(), threading.Event()
        self.open.set()
        rename = backend._OsPathBackend.rename

        def waits(backend, path, to):
            if os.path.basename(os.path.dirname(path)) == "checkpoints":  # not a part of one
                self.reached.set()
                assert self.open.wait(60)
            rename(backend, path, to)

        monkeypatch.setattr(backend._OsPathBackend, "rename", waits)

    def close(self):
        self.open.clear()
        self.reached.clear()


@pytest.fixture
def gate(monkeypatch):
    made = Gate(monkeypatch)
    yield made
    made.open.set()


@functools.partial(jax.jit, donate_argnums=(0, 1))
def change(params, state):
    params = jax.tree.map(lambda x: x * 1.5 + 1, params)
    return params, {"steps": state["steps"] + 1}, jnp.sum(params["w"])


def start():
    return {"w": jnp.arange(200_000.0), "b": jnp.ones(3)}, {"steps": jnp.zeros(())}


def run(workdir, before=lambda step: None):
    """Trains eight steps, or what is left of them; `before` is told of each."""

    def advance(params, state, number, batch):
        before(number)
        params, state, loss = change(params, state)
        return params, state, {"loss": loss}, Work(1, 1.0)

    with checkpoints.manager(str(workdir)) as saved:
        how = saved, start(), itertools.repeat, advance, lambda _: {"right": 1.0}, "right"
        steps.run(COUNTS, str(workdir), *how)
    return times.without(read_metrics(str(workdir / "metrics.jsonl")))


def there(workdir):
    return sorted(p.name for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def test_steps_go_on_and_a_kill_loses_one_save(gate, tmp_path):
    """What a kill leaves while a checkpoint is written goes on to the same losses."""
    seen = {}

    def before(step):
        if step == 2:  # the save after two steps began: nothing has to wait for it
            gate.reached.wait(60)
        if step == 3:
            seen["first"] = there(tmp_path / "run")
            gate.open.set()
        if step == 5:
            assert gate.reached.wait(60)
            shutil.copytree(tmp_path / "run", tmp_path / "killed")
            gate.open.set()
        if step in (1, 3):  # the save after the next step will wait
            checkpoints_done()
            gate.close()

    def checkpoints_done():
        deadline = threading.Event()
        for _ in range(600):
            if not any("tmp" in p.name for p in (tmp_path / "run/checkpoints").iterdir()):
                return
            deadline.wait(0.1)
        raise AssertionError("the save does not end")

    whole = run(tmp_path / "run", before)
    assert seen["first"] == [] and there(tmp_path / "run") == ["6", "8"]
    assert there(tmp_path / "killed") == ["2"]
    assert any("tmp" in p.name for p in (tmp_path / "killed/checkpoints").iterdir())
    taken = []
    again = run(tmp_path / "killed", taken.append)
    assert taken == [2, 3, 4, 5, 6, 7] and again == whole
    assert there(tmp_path / "killed") == ["6", "8"]


def test_what_is_written_is_what_was_there_when_it_began(gate, tmp_path):
    """Later steps take the arrays' memory."""
    params, state = start()
    with checkpoints.manager(str(tmp_path)) as saved:
        expected = jax.tree.map(np.array, params)
        gate.close()
        checkpoints.save(saved, 1, params, state)
        for _ in range(5):
            params, state, _ = change(params, state)
        jax.block_until_ready(params)
        assert there(tmp_path) == []
        gate.open.set()
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    with checkpoints.manager(str(tmp_path), read_only=True) as saved:
        step, found, _ = checkpoints.restore(saved, like)
    assert step == 1
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("at_the_end", [True, False])
def test_a_save_that_fails_is_told_in_one_line(gate, tmp_path, at_the_end, caplog):
    params, state = start()
    with checkpoints.manager(str(tmp_path)) as saved:
        checkpoints.save(saved, 2, params, state)
    with (
        pytest.raises(UserError, match="checkpoints/4 cannot be written .FileNotFound.*are kept"),
        checkpoints.manager(str(tmp_path)) as saved,
    ):
        gate.close()
        checkpoints.save(saved, 4, params, state)
        assert gate.reached.wait(60)
        for folder in (tmp_path / "checkpoints").glob("*tmp*"):
            shutil.rmtree(folder)  # a disk that goes away
        gate.open.set()
        if not at_the_end:
            checkpoints.save(saved, 6, params, state)
    assert there(tmp_path) == ["2"] and not caplog.records
    with checkpoints.manager(str(tmp_path), read_only=True) as saved:
        assert saved.latest_step() == 2
