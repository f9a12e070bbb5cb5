"""Training with its workdir in a bucket: the same losses, and nothing on this machine."""

import contextlib
import os
import socket

import fsspec
import jax
import numpy as np
import pytest
from orbax.checkpoint._src.path import gcs_utils

from speccascade import pairs
from speccascade.errors import UserError
from speccascade.training import loop
from speccascade.training.step import Step
from speccascade.workdir import bucket, checkpoints, notes
from speccascade.workdir.training_metrics import read_metrics
from tests.training import times, tiny
from tests.workdir.bucket import Bucket, install
from tests.workdir.bucket_server import serve

WORKDIR = "gs://bucket/runs/w"


@pytest.fixture(scope="module", params=["memory", "emulator"])
def made(request):
    """The bucket's file system."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as held:
        for name, seconds in {"RENEWS": 0.5, "EXPIRES": 1.0, "SETTLES": 0.1}.items():
            patch.setattr(bucket, name, seconds)
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")  # TensorStore's
        if request.param == "memory":
            found = install(patch)
            url = held.enter_context(serve(found))
            # Orbax asks Google's own client whether the bucket has folders, and nothing else.
            patch.setattr(gcs_utils, "get_bucket", lambda name: None)
        else:
            url = held.enter_context(emulator(patch))
            found = fsspec.filesystem("gs")
            # It moves objects by a call that the emulator does not have.
            patch.setattr(type(found), "mv", fsspec.AbstractFileSystem.mv)
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", url)
        yield found


@contextlib.contextmanager
def emulator(patch):
    """Yields the URL of Google's API with all its real clients."""
    wanted = "gcsfs and gcp-storage-emulator"
    pytest.importorskip("gcsfs", reason=f"needs {wanted}")
    server = pytest.importorskip("gcp_storage_emulator.server", reason=f"needs {wanted}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    patch.setenv("STORAGE_EMULATOR_HOST", url)
    running = server.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    running.start()
    yield url
    running.stop()


def kept(made, workdir):
    """Returns what lies in a workdir."""
    made.invalidate_cache()
    start = workdir.removeprefix("gs://")
    return {path.partition(f"{start}/")[2] for path in made.find(start)}


def config():
    config = tiny.get_config()
    config.train.update(num_steps=6, eval_every=6, checkpoint_every=2)
    return config


def logged(workdir):
    rows = read_metrics(os.path.join(workdir, "metrics.jsonl"))
    return times.without(rows)


def interrupt(monkeypatch, after):
    """Has the run end in the middle of its `after`-th step from now."""
    step, taken = Step.__call__, []

    def interrupted(self, *args):
        taken.append(1)
        if len(taken) == after:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(Step, "__call__", interrupted)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_there_to_the_losses_of_a_disk(made, tmp_path, monkeypatch):
    loop.train(config(), str(tmp_path / "disk"))
    with monkeypatch.context() as patch:
        interrupt(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config(), WORKDIR)
    parts = [name.split("/") for name in kept(made, WORKDIR)]
    assert {part[1] for part in parts if part[0] == "checkpoints"} == {"2"}
    loop.train(config(), WORKDIR)
    assert logged(WORKDIR) == logged(tmp_path / "disk") and len(logged(WORKDIR)) == 4
    here, there = (checkpoints.load_model(w) for w in (str(tmp_path / "disk"), WORKDIR))
    assert here[0] == there[0] and here[2] == there[2]
    for a, b in zip(jax.tree.leaves(here[1]), jax.tree.leaves(there[1]), strict=True):
        np.testing.assert_array_equal(a, b)
    names = kept(made, WORKDIR)
    assert {"config.json", "model.json", "tokenizer.json", "metrics.jsonl"} <= names
    assert {"data/train.npz", "data/validation.npz"} <= names
    assert any(name.startswith("tb/events.") for name in names)
    assert not any(name.endswith(".partial") for name in names)
    assert not os.path.exists("gs:")
    # As expert, teacher, and what another begins from.
    assert notes.read(WORKDIR)["steps"] == 6
    again = config()
    again.train.update(init_from=WORKDIR, distill_from=WORKDIR, num_steps=2)
    loop.train(again, "gs://bucket/runs/again")
    pair = pairs.load({"drafter": "gs://bucket/runs/again", "expert": WORKDIR})
    assert pair.hash == pairs.load({"drafter": "gs://bucket/runs/again", "expert": WORKDIR}).hash


def test_a_bucket_that_cannot_be_written_is_told_in_one_line(monkeypatch):
    found = install(monkeypatch)
    monkeypatch.setattr(found, "full", True)
    with pytest.raises(UserError, match="cannot write to gs://bucket/runs/new: 429: quota exce"):
        loop.train(config(), "gs://bucket/runs/new")
    assert not found.store


@pytest.mark.slow
def test_a_bucket_that_fills_up_during_a_save_is_told_in_one_line(made, monkeypatch):
    if not isinstance(made, Bucket):
        pytest.skip("the emulator never fills up")
    workdir = "gs://bucket/runs/full"
    params, rest = {"a": np.ones(2)}, {"b": np.ones(1)}
    with (
        pytest.raises(UserError, match="runs/full/checkpoints/2 cannot be written"),
        checkpoints.manager(workdir) as saved,
    ):
        checkpoints.save(saved, 1, params, rest)
        saved.wait_until_finished()
        monkeypatch.setattr(made, "full", True)
        checkpoints.save(saved, 2, params, rest)
    with checkpoints.manager(workdir, read_only=True) as saved:
        assert saved.latest_step() == 1
