"""Rounds in which the drafter learns on its own texts."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import ml_collections
import numpy as np
import pytest
from etils import epath

from speccascade import importing, models, pairs
from speccascade.distillation import texts, training, writing
from speccascade.distillation.rounds import Rounds
from speccascade.distillation.texts import Features, Texts
from speccascade.errors import UserError
from speccascade.training.step import Step
from speccascade.workdir import checkpoints
from speccascade.workdir.parameter_files import flat
from speccascade.workdir.training_metrics import read_metrics
from tests.distillation import tiny, tiny_rounds
from tests.sharding import test_hosts
from tests.training import times

ROOT = pathlib.Path(__file__).parents[2]


def config(source="", **changes):
    made = tiny_rounds.get_config(source)
    with made.ignore_type():
        made.rounds.update(changes)
    return made


# ---- batches ----

ALL = np.ones(4, bool)


def made_up(count, first):
    """Texts that are told apart by their first token, from `first` on."""
    each = np.ones(count, np.int32)
    tokens = np.tile(np.arange(first, first + count, dtype=np.int32)[:, None], (1, 6))
    log_normaliser = np.zeros((count, 6), np.float32)
    features = Features([np.zeros((count, 6, 3), np.uint16)])
    return Texts(tokens, each * 2, each * 2, each * 5, features, log_normaliser)


def batches(tmp_path, **changes):
    """Rounds whose texts are in files already, five of each from 101 and from 201 on."""
    c = ml_collections.FrozenConfigDict(config(num_texts=5, **changes))
    for number in (1, 2):
        directory = epath.Path(tmp_path) / "rounds" / f"{number:03d}"
        directory.mkdir(parents=True)
        texts.save(directory / "00000.npz", made_up(5, number * 100 + 1).batch(np.arange(5)))
    return Rounds(c, made_up(9, 1), epath.Path(tmp_path), None, None, None, ALL)


def first_tokens(found, steps):
    """Returns the rows of each step's batch by their first tokens; a round is not begun."""
    seen = []
    for step in steps:
        found.prepare(None, max(step, steps[0] + 1), None)
        batch = found.batch(step)
        assert batch["features"].shape == (4, 6, 3)
        seen.append(batch["tokens"][:, 0])
    return np.array(seen)


def test_a_share_of_every_batch_is_of_the_drafter(tmp_path):
    found = batches(tmp_path, share=0.5)
    assert first_tokens(found, range(4)).max() <= 9  # before the first round
    one, two = (first_tokens(found, range(n, n + 3)) for n in (4, 8))
    for rows, first in ((one, 101), (two, 201)):
        own = rows[rows > 9]
        np.testing.assert_array_equal((rows > 9).sum(1), [2, 2, 2])
        # None again before all five were read.
        assert set(own[:5].tolist()) == set(range(first, first + 5))
    assert (first_tokens(batches(tmp_path / "all", share=1.0), range(4, 7)) > 9).all()
    # A restart in the middle reads the same.
    again = Rounds(found.config, found.learnt, found.workdir, None, None, None, ALL)
    np.testing.assert_array_equal(first_tokens(again, [6]), one[2:])


def test_texts_that_are_gone(tmp_path):
    found = batches(tmp_path, share=0.5)
    shutil.rmtree(tmp_path / "rounds" / "001")
    with pytest.raises(UserError, match="001 has 0 of 5 texts, and the drafter .* 1 steps further"):
        found.prepare(None, 5, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every": 0}, "rounds.every=0 must be at least 1"),
        ({"every": 6}, "rounds.every=6 must be a multiple of train.checkpoint_every=4"),
        ({"every": 12}, "rounds.every=12 must be below train.num_steps=12"),
        ({"num_texts": 16}, "rounds.num_texts=16 must be at most 15, the prompts"),
        ({"share": 0.0}, "rounds.share=0.0 must be above 0 and at most 1"),
        ({"share": 1.5}, "rounds.share=1.5 must be above 0"),
        ({"share": "half"}, "rounds.share=.half. must be a"),
        ({"share": 0.1}, "rounds.share=0.1 of train.batch_size=4 is no row; raise one"),
        ({"number": 3}, "unknown field rounds.number; known: every, num_texts, share"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_read(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        training.distill(config("absent", **changes), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# ---- whole runs ----


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny.expert(tmp_path_factory.mktemp("rounds") / "expert", 1 / 2)


@pytest.fixture(scope="module")
def workdir(source, tmp_path_factory):
    workdir = str(tmp_path_factory.mktemp("run"))
    training.distill(config(source), workdir)
    return workdir


def logged(workdir):
    return times.without(read_metrics(f"{workdir}/metrics.jsonl"))


def written(workdir):
    """Returns the texts of both rounds."""
    return [texts.load(epath.Path(workdir) / "rounds" / f"{n:03d}", 12) for n in (1, 2)]


def params_at(workdir, step):
    """Returns the drafter and its parameters after a step, but for the embedding."""
    model = models.build(json.loads(pathlib.Path(workdir, "model.json").read_text()))
    shapes = {key: value for key, value in models.shapes(model).items() if key != "embedding"}
    with checkpoints.manager(workdir, read_only=True) as saved:
        args = checkpoints.ocp.args.StandardRestore(shapes)
        args = checkpoints.ocp.args.Composite(params=args)
        return model, saved.restore(step, args=args)["params"]


def check_alike(workdir, other):
    """Asserts that two runs wrote the same texts, logged the same and end with the same weights."""
    assert logged(workdir) == logged(other)
    for one, two in zip(written(workdir), written(other), strict=True):
        np.testing.assert_array_equal(one.tokens, two.tokens)
    found, expected = (flat(params_at(each, 12)[1]) for each in (workdir, other))
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.slow
def test_a_round_is_what_the_drafter_writes_and_the_expert_makes_of_it(source, workdir):
    expert = importing.load(source)
    model, params = params_at(workdir, 8)
    params = {**params, "embedding": expert.params["embedding"]}
    learnt = texts.load(epath.Path(workdir) / "texts", 20).split(5)[1]
    one, two = written(workdir)
    assert len(one) == len(two) == 12
    asked = {tuple(row[:n]) for row, n in zip(learnt.tokens, learnt.prompt_length, strict=True)}
    asked_once = []
    for found in (one, two):
        prompts = [tuple(r[:n]) for r, n in zip(found.tokens, found.prompt_length, strict=True)]
        assert set(prompts) <= asked
        asked_once.append(len(set(prompts)))
        np.testing.assert_array_equal(found.first, found.prompt_length)
    assert asked_once[0] == 12  # of 15: none again before all were
    # Rows of temperature 0 have the likeliest token of the drafter as it was then.
    q = np.asarray(model.forward(params, two.tokens, two.prompt_length))
    position = np.arange(two.tokens.shape[1])[:-1]
    inside = (position >= two.prompt_length[:, None] - 1) & (position < two.length[:, None] - 1)
    inside[1::2] = False
    assert inside.sum() >= 12
    np.testing.assert_array_equal(q.argmax(-1)[:, :-1][inside], two.tokens[:, 1:][inside])
    # They are read as the expert reads them, up to the rounding of features.
    p = expert.model.forward(expert.params, two.tokens, two.prompt_length)
    expected = np.asarray(jax.nn.logsumexp(p, axis=-1))
    there = np.arange(two.tokens.shape[1]) < two.length[:, None]
    np.testing.assert_allclose(two.log_normaliser[there], expected[there], atol=2e-2)


@pytest.mark.slow
def test_the_loss_is_the_distance_on_the_mixture(source, workdir):
    """The first step of the second round, by NumPy in float64."""
    expert = importing.load(source)
    model, params = params_at(workdir, 8)
    c, ids = config(source), np.asarray(params["head"]["ids"])
    learnt = texts.load(epath.Path(workdir) / "texts", 20).split(5)[1]
    c = ml_collections.FrozenConfigDict(c)
    found = Rounds(c, learnt, epath.Path(workdir), None, None, None, ALL)
    found._own = 2, written(workdir)[1]
    batch = found.batch(8)
    given = batch["tokens"], batch["prompt_length"]
    params = {**params, "embedding": expert.params["embedding"]}
    log_q = np.asarray(model.forward(params, *given), np.float64)[:, :-1, ids]
    log_p = np.asarray(expert.model.forward(expert.params, *given), np.float64)[:, :-1]
    log_q -= np.log(np.exp(log_q).sum(-1, keepdims=True))
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    log_p = log_p[..., ids]
    distance = (np.exp(log_p) * (log_p - log_q)).sum(-1)
    index = np.arange(1, batch["tokens"].shape[1])
    inside = (index >= batch["first"][:, None]) & (index < batch["length"][:, None])
    (loss,) = [r["loss"] for r in logged(workdir) if r["step"] == 9 and "loss" in r]
    np.testing.assert_allclose(loss, distance[inside].mean(), rtol=2e-3)
    for part in (slice(0, 2), slice(2, 4)):  # and of neither part alone
        assert abs(distance[part][inside[part]].mean() - loss) > 1e-2 * abs(loss)


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["a file of a round", "a batch of its first", "a step after it"])
def test_a_run_that_stops_goes_on_to_the_same_weights(source, workdir, tmp_path, stop, monkeypatch):
    # The expert's texts are three files, a round's two.
    owner, name, at, there = {
        "a file of a round": (texts, "save", 3 + 2, 1),
        "a batch of its first": (writing.Writer, "_texts", 3 + 1, 0),
        "a step after it": (Step, "__call__", 6, 2),
    }[stop]
    whole, calls = getattr(owner, name), []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.distill(config(source), str(tmp_path))
    monkeypatch.undo()
    assert len(texts.files(epath.Path(tmp_path) / "rounds" / "001")) == there
    training.distill(config(source), str(tmp_path))
    check_alike(str(tmp_path), workdir)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(source, workdir, tmp_path):
    flags = f"--config={tiny_rounds.__file__}:{source}", f"--workdir={tmp_path}"
    command = [sys.executable, "scripts/distill.py", *flags]
    how = {"cwd": ROOT, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **how)
    while not (tmp_path / "rounds" / "001" / "00000.npz").exists():
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert run.returncode == -signal.SIGKILL and not (tmp_path / "rounds" / "002").exists()
    done = subprocess.run(command, capture_output=True, text=True, **how)
    assert done.returncode == 0, done.stderr
    check_alike(str(tmp_path), workdir)


# ---- on a mesh ----


def check_near(workdir, other, **tolerance):
    """Asserts that two runs wrote the same texts and logged nearly the same."""
    for one, two in zip(written(workdir), written(other), strict=True):
        np.testing.assert_array_equal(one.tokens, two.tokens)
    for expected, found in zip(logged(workdir), logged(other), strict=True):
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, **tolerance, err_msg=name)


@pytest.mark.slow
def test_rounds_on_a_mesh(source, workdir, tmp_path):
    c = config(source)
    c.mesh = {"data": 2, "fsdp": 2, "model": 2}
    training.distill(c, str(tmp_path))
    check_near(workdir, str(tmp_path), rtol=1e-3, atol=1e-4)  # features are kept in bfloat16


def on_four_devices(source, workdir, *launch):
    """Starts a run on four devices, of one process or of two that `launch` starts."""
    mesh = '--config.mesh={"data": 2, "model": 2}'
    flags = f"--config={tiny_rounds.__file__}:{source}", mesh, f"--workdir={workdir}"
    command = [*launch, sys.executable, "scripts/distill.py", *flags]
    return test_hosts.start(*command, devices=2 if launch else 4)


@pytest.fixture(scope="module")
def one_process(source, tmp_path_factory):
    workdir = str(tmp_path_factory.mktemp("one"))
    code, _, err = test_hosts.finish(on_four_devices(source, workdir))
    assert code == 0, err
    return workdir


@pytest.mark.slow
def test_two_processes_do_what_one_does(source, one_process, tmp_path):
    code, out, err = test_hosts.finish(on_four_devices(source, tmp_path, *test_hosts.LAUNCH))
    assert code == 0, err
    assert len(out) == 1 and out[0].startswith("[0] acceptance 0.")
    check_near(one_process, str(tmp_path), rtol=1e-5, atol=1e-5)
    pairs.load({"drafter": str(tmp_path), "expert": source})


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_the_run_goes_on(source, one_process, tmp_path):
    run = on_four_devices(source, tmp_path, *test_hosts.LAUNCH)
    file = tmp_path / "rounds" / "001" / "00000.npz"
    test_hosts.wait_for(file.exists, run)
    os.kill(test_hosts.child(run.pid, "--process_id=1"), signal.SIGKILL)
    code, _, err = test_hosts.finish(run)
    assert code != 0 and err[-1].startswith("error: process 1 was killed by SIGKILL"), err[-1]
    assert not (tmp_path / "rounds" / "002").exists()
    code, _, err = test_hosts.finish(on_four_devices(source, tmp_path))  # in one process
    assert code == 0, err
    check_near(one_process, str(tmp_path), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_what_two_processes_refuse(source, tmp_path):
    flags = f"--config={tiny_rounds.__file__}:{source}", f"--workdir={tmp_path / 'run'}"
    command = [sys.executable, "scripts/distill.py", *flags]
    code, out, err = test_hosts.finish(test_hosts.start(*test_hosts.LAUNCH, *command))
    told = "error: 2 processes share no mesh: give the config one"
    assert code == 2 and out == [] and any(line.startswith(f"[0] {told}") for line in err), err
    assert not (tmp_path / "run").exists()
