"""A training on a mesh that goes on elsewhere: on another mesh, in other processes."""

import json
import os
import pathlib
import signal
import sys

import jax
import numpy as np
import pytest

from speccascade.training import loop
from speccascade.training.batches import rows_of_steps
from speccascade.training.step import Step
from speccascade.workdir import checkpoints
from speccascade.workdir.training_metrics import read_metrics
from tests.sharding.test_hosts import LAUNCH, child, finish, start, wait_for
from tests.training import on_a_mesh, times, what_is_read

CONFIG = pathlib.Path(on_a_mesh.__file__)


def logged(workdir):
    """Returns the steps and all other numbers, in the order of the rows."""
    rows = read_metrics(os.path.join(workdir, "metrics.jsonl"))
    kept = times.without(rows)
    return [tuple(row) for row in kept], np.concatenate([list(row.values()) for row in kept])


def check_alike(workdir, expected):
    (names, found), (wanted_names, wanted) = logged(workdir), expected
    assert names == wanted_names
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    """What a run on one device logs."""
    workdir = str(tmp_path_factory.mktemp("one"))
    loop.train(on_a_mesh.get_config(), workdir)
    return logged(workdir)


@pytest.mark.slow
def test_it_goes_on_at_another_mesh_to_the_same_losses(one_device, tmp_path, monkeypatch):
    workdir, step, taken = str(tmp_path / "run"), Step.__call__, []

    def interrupted(self, *args):
        taken.append(tuple(self.layout.mesh.shape.items()))
        if len(taken) in (4, 7):
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(Step, "__call__", interrupted)
    on_meshes = [on_a_mesh.get_config(m) for m in ("data=4,model=2", "data=1,fsdp=4,model=2")]
    for config in on_meshes:
        with pytest.raises(KeyboardInterrupt):
            loop.train(config, workdir)
    last = on_a_mesh.get_config("data=2,fsdp=2,model=2")
    last.train.update(accumulate=1, remat=True)
    loop.train(last, workdir)
    assert [len(set(taken)), len(taken)] == [3, 3 + 1 + 2 + 1 + 2]
    check_alike(workdir, one_device)
    for leaf in jax.tree.leaves(checkpoints.load_model(workdir)[1]):
        assert len(leaf.sharding.device_set) == 1


def command(workdir):
    sizes = "data=2,fsdp=2"
    flags = f"--config={CONFIG}:{sizes}", f"--workdir={workdir}"
    return [sys.executable, "scripts/train.py", *flags]


def read_by(notes):
    """Returns which rows of each batch a process read."""
    lines = map(json.loads, notes.read_text().splitlines())
    return {tuple(rows): tuple(read) for rows, read in lines}


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_and_read_their_own_rows(one_device, tmp_path):
    workdir, notes = tmp_path / "run", tmp_path / "notes"
    notes.mkdir()
    flags = f"--config={what_is_read.__file__}:data=2,fsdp=2@{notes}", f"--workdir={workdir}"
    code, out, err = finish(start(*LAUNCH, sys.executable, "scripts/train.py", *flags))
    assert code == 0, err
    assert len(out) == 1 and out[0].startswith("[0] validation_nll ")
    check_alike(workdir, one_device)
    one, two = (read_by(notes / name) for name in ("0", "1"))
    order = rows_of_steps(50, 4, seed=0)
    for step in range(6):  # both are at the same batch, of which either reads its half
        halves = one[tuple(order[step])], two[tuple(order[step])]
        assert sorted(halves) == [(False, False, True, True), (True, True, False, False)]
    for found in (one, two):  # and none reads another row
        assert {sum(read) for read in found.values()} == {2}


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_the_run_goes_on(one_device, tmp_path):
    run = start(*LAUNCH, *command(tmp_path))

    def two_steps():
        return read_metrics(os.path.join(tmp_path, "metrics.jsonl"))

    wait_for(two_steps, run)
    os.kill(child(run.pid, "--process_id=1"), signal.SIGKILL)
    code, _, err = finish(run)
    assert code != 0 and err[-1].startswith("error: process 1 was killed by SIGKILL"), err[-1]
    code, _, err = finish(start(*LAUNCH, *command(tmp_path)))
    assert code == 0, err
    check_alike(tmp_path, one_device)
