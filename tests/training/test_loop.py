import glob
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

from speccascade import models, tasks
from speccascade.errors import UserError
from speccascade.training import data, loop
from speccascade.training.objective import Fixed, Objective, evaluate
from speccascade.training.optimizer import make_optimizer
from speccascade.workdir import checkpoints
from speccascade.workdir.training_metrics import read_metrics
from tests import random_params
from tests.training import times, tiny

ROOT = pathlib.Path(__file__).parents[2]


def start(workdir, *more) -> subprocess.Popen:
    config = ROOT / "tests/training/tiny.py"
    command = [sys.executable, "scripts/train.py", f"--config={config}", f"--workdir={workdir}"]
    return subprocess.Popen(
        [*command, *more],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def losses_of(workdir):
    rows = read_metrics(os.path.join(workdir, "metrics.jsonl"))
    return times.without(rows)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The workdir of a whole tiny run."""
    workdir = str(tmp_path_factory.mktemp("whole"))
    loop.train(tiny.get_config(), workdir)
    return workdir


def test_a_killed_run_continues_to_the_same_losses(trained, tmp_path):
    process = start(tmp_path)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        rows = losses_of(tmp_path)
        if rows and rows[-1]["step"] >= 14:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert losses_of(tmp_path)[-1]["step"] < 60

    again = start(tmp_path, "--profile")
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert "validation_whole_answer" in out and "60/60" in err
    assert glob.glob(os.path.join(tmp_path, "profile", "**", "*.xplane.pb"), recursive=True)
    assert losses_of(tmp_path) == losses_of(trained)
    for a, b in zip(
        jax.tree.leaves(checkpoints.load_model(trained)[1]),
        jax.tree.leaves(checkpoints.load_model(str(tmp_path))[1]),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_what_a_run_leaves(trained):
    rows = losses_of(trained)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 30 and losses[-1] < losses[0] - 1
    assert [row["step"] for row in rows if "validation_nll" in row] == [20, 40, 60]
    assert sorted(os.listdir(os.path.join(trained, "checkpoints"))) == ["50", "60"]
    assert glob.glob(os.path.join(trained, "tb", "events.*"))
    model, params, tokenizer = checkpoints.load_model(trained)
    assert model.vocab_size == tokenizer.vocab_size == 320
    tokens = np.array([tokenizer.encode("Ann")])
    assert jax.jit(model.forward)(params, tokens, np.ones(1, np.int32)).shape[-1] == 320


def test_another_config_is_refused_and_nothing_is_lost(trained):
    before = {p: p.read_bytes() for p in pathlib.Path(trained).rglob("*") if p.is_file()}
    config = tiny.get_config()
    config.train.learning_rate, config.model.d_ff = 0.5, 8
    with pytest.raises(UserError) as found:
        loop.train(config, trained)
    changes = "model.d_ff (16 there, 8 now), train.learning_rate (0.01 there, 0.5 now)"
    assert changes in str(found.value) and "\n" not in str(found.value)
    assert before == {p: p.read_bytes() for p in pathlib.Path(trained).rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("loss", "optimizer"), [("forward_kl", "adamw"), ("total_variation", "muon")]
)
def test_a_drafter_distilled_from_its_teacher_alone_approaches_it(
    trained, tmp_path, loss, optimizer
):
    config = tiny.get_config(optimizer)
    config.train.update(distill_from=trained, distill_loss=loss, distill_weight=1.0, num_steps=20)
    loop.train(config, str(tmp_path))
    distances = [row["distill"] for row in losses_of(tmp_path) if "distill" in row]
    assert distances[-1] < 0.9 * distances[0]
    assert checkpoints.load_model(str(tmp_path))[2] == checkpoints.load_model(trained)[2]


def test_validation_counts_answers_that_are_all_argmax(trained):
    model, params, tokenizer = checkpoints.load_model(trained)
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, 320, (7, 12)).astype(np.int32)
    # Answers made greedy from position 5 on, but for the first row's last token.
    forward = jax.jit(model.forward)
    for t in range(5, 12):
        tokens[:, t] = np.asarray(forward(params, tokens, np.full(7, 5)))[:, t - 1].argmax(-1)
    tokens[0, -1] = (tokens[0, -1] + 1) % 320
    problems = data.Problems(tokens, np.full(7, 5), np.full(7, 12))
    figures = evaluate(model, params, problems, batch_size=4)
    assert figures["validation_whole_answer"] == pytest.approx(6 / 7)
    assert figures["validation_token_accuracy"] == pytest.approx(48 / 49)


def test_answers_alone_give_the_loss_of_whole_texts_without_their_prompts(trained):
    model, params, _ = checkpoints.load_model(trained)
    rng = np.random.default_rng(0)
    problems = data.Problems(
        rng.integers(2, 320, (3, 12)).astype(np.int32), np.array([5, 1, 9]), np.array([12, 4, 11])
    )
    how = {"teacher": model, "distance": "forward_kl", "distill_weight": 0.3}
    answers_alone = Objective(model, 320, **how)
    # A weight of prompts that is nearly none.
    whole_texts = Objective(model, 320, prompt_weight=1e-9, **how)
    other = jax.tree.map(lambda x: 1.1 * np.asarray(x), params)

    def mean(objective):
        batch = objective.batch(problems, np.arange(3))

        @jax.jit
        def of(own, other):
            return objective(own, batch, objective.totals(batch), Fixed(other), None)

        return of(params, other)

    (whole, logged), (answers, logged_too) = mean(whole_texts), mean(answers_alone)
    assert logged["distill"] > 1e-3 and logged["answer_nll"] > 1
    np.testing.assert_allclose(answers, whole, rtol=1e-5)
    for name, value in logged.items():
        np.testing.assert_allclose(logged_too[name], value, rtol=1e-5)


def test_rows_of_like_length_are_learnt_from(tmp_path):
    config = tiny.get_config("muon")
    config.train.update(prompt_weight=0.0, sort_by_length=True, num_steps=20)
    loop.train(config, str(tmp_path))
    losses = [row["loss"] for row in losses_of(tmp_path) if "loss" in row]
    assert losses[-1] < 0.9 * losses[0]


def test_damaged_or_missing_checkpoints(trained, tmp_path):
    with pytest.raises(UserError, match="model.json is missing"):
        checkpoints.load_model(str(tmp_path))
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", trained, str(copy)], check=True)
    for path in (copy / "checkpoints" / "60").rglob("*"):
        if path.is_file() and path.stat().st_size > 200:
            path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="checkpoints/60 cannot be read"):
        checkpoints.load_model(str(copy))
    subprocess.run(["rm", "-r", str(copy / "checkpoints" / "60")], check=True)
    checkpoints.load_model(str(copy))  # the one before
    subprocess.run(["rm", "-r", str(copy / "checkpoints")], check=True)
    with pytest.raises(UserError, match="no checkpoints"):
        checkpoints.load_model(str(copy))
    (copy / "model.json").write_text("{")
    with pytest.raises(UserError, match="model.json is no JSON.* it is damaged"):
        checkpoints.load_model(str(copy))


def test_of_a_damaged_checkpoint_one_line_is_said(trained, tmp_path, monkeypatch):
    damaged, said = tmp_path / "damaged", []
    shutil.copytree(trained, damaged)
    (largest,) = (damaged / "checkpoints" / "60" / "params" / "d").iterdir()
    largest.write_bytes(largest.read_bytes()[:-100])
    monkeypatch.setattr(sys, "unraisablehook", lambda found: said.append(str(found.exc_value)))
    for _ in range(5):  # what a thread says that nobody waits for depends on who is quicker
        with pytest.raises(UserError, match="checkpoints/60 cannot be read, perhaps truncated"):
            checkpoints.load_model(str(damaged))
    time.sleep(0.1)
    assert not said


def test_bad_settings_are_named_before_anything_is_written(tmp_path):
    workdir = tmp_path / "new"
    for changes, message in (
        ({"optimizer": "sgd"}, "unknown train.optimizer 'sgd'"),
        ({"checkpoint_every": 3}, "multiple of train.log_every"),
        ({"distill_from": str(tmp_path)}, "config.json is missing"),
        ({"distill_from": str(tmp_path), "distill_loss": "mse"}, "unknown distillation loss"),
        ({"ema_decays": 0.9}, "no field 'ema_decays'; did you mean train.ema_decay"),
        ({"row_length": 20}, "raise train.row_length \\(now 20\\)"),
    ):
        config = tiny.get_config()
        config.train.update(changes)
        with pytest.raises(UserError, match=message):
            loop.train(config, str(workdir))
        assert not workdir.exists()


def test_int8_weights_are_not_trained(tmp_path):
    config = tiny.get_config()
    config.model.weight_dtype = "int8"
    with pytest.raises(UserError, match="int8 weights cannot be trained"):
        loop.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_an_encoder_decoder_trains_on_answers_alone(tmp_path):
    config = encoder_decoder_config()
    config.train.prompt_weight = 0.2
    with pytest.raises(UserError, match="set train.prompt_weight to 0"):
        loop.train(config, str(tmp_path))
    config.train.prompt_weight = 0.0
    loop.train(config, str(tmp_path))
    losses = [row["loss"] for row in losses_of(tmp_path) if "loss" in row]
    assert losses[-1] < losses[0] - 1


def encoder_decoder_config():
    config = tiny.get_config()
    del config.model["num_kv_heads"]
    config.model.update(family="encoder_decoder", num_decoder_layers=1)
    config.task.templates = (10,)  # batches of one shape: each would be a program of its own
    config.train.update(prompt_weight=0.0, num_steps=20)
    return config


def test_dropout_leaves_units_out_in_training_alone(trained, tmp_path):
    config = encoder_decoder_config()
    config.train.dropout = 0.3
    task = tasks.make(config.task)
    _, _, tokenizer = checkpoints.load_model(trained)
    problems = data.tokenize(task.examples("train"), "train", tokenizer, 160)
    model = models.build({**config.model, "vocab_size": tokenizer.vocab_size})
    params, batch = random_params.of(model), problems.answers(np.arange(8))

    def loss_at(rate):
        objective = Objective(model, 320, dropout=rate)
        loss = jax.jit(
            lambda params, key: objective(params, batch, objective.totals(batch), None, key)[0]
        )
        return lambda key: loss(params, key)

    thinned, whole = loss_at(0.3), loss_at(0.0)
    one, two = map(jax.random.key, (1, 2))
    assert thinned(one) == thinned(one) != thinned(two)
    assert whole(one) == whole(two) != thinned(one)
    config.train.dropout = 0.3
    loop.train(config, str(tmp_path))
    losses = [row["loss"] for row in losses_of(tmp_path) if "loss" in row]
    assert losses[-1] < losses[0] - 0.3


def test_dropout_wants_an_encoder_decoder(tmp_path):
    config = tiny.get_config()
    config.train.update(dropout=0.1)
    with pytest.raises(UserError, match=r"set train\.dropout to 0"):
        loop.train(config, str(tmp_path / "run"))


def test_training_begins_from_a_trained_model(trained, tmp_path):
    config = tiny.get_config()
    config.train.update(init_from=trained, num_steps=2, learning_rate=0.0)
    loop.train(config, str(tmp_path / "same"))
    before, after = (checkpoints.load_model(w) for w in (trained, str(tmp_path / "same")))
    for a, b in zip(jax.tree.leaves(before[1]), jax.tree.leaves(after[1]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert before[2] == after[2]
    config.model.d_ff = 8
    with pytest.raises(UserError, match=r"is another model: d_ff \(16 there, 8 here\)"):
        loop.train(config, str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    config.tokenizer.vocab_size = 300
    config.train.init_from = ""
    loop.train(config, str(tmp_path / "tokens"))
    config.train.update(init_from=trained, distill_from=str(tmp_path / "tokens"))
    with pytest.raises(UserError, match="has another tokenizer than"):
        loop.train(config, str(tmp_path / "both"))
    assert not (tmp_path / "both").exists()


def test_both_optimizers_decay_matrices_alone():
    params = {"embedding": np.ones((4, 3)), "weight": np.ones((3, 3)), "scale": np.ones(3)}
    params = jax.tree.map(lambda x: x.astype(np.float32), params)
    for name in ("adamw", "muon"):
        train = tiny.get_config(name).train
        train.update(weight_decay=0.5, warmup_steps=1)
        optimizer = make_optimizer(ml_collections.FrozenConfigDict(train))
        update = jax.jit(optimizer.update)
        state = optimizer.init(params)
        zeros = jax.tree.map(np.zeros_like, params)
        for _ in range(2):
            updates, state = update(zeros, state, params)
        updates = jax.device_get(updates)
        assert not updates["embedding"].any() and not updates["scale"].any()
        np.testing.assert_allclose(updates["weight"], -0.5e-2, rtol=1e-5)


def test_embeddings_may_learn_at_a_rate_of_their_own():
    params = {"embedding": np.ones((4, 3), np.float32), "weight": np.ones((3, 3), np.float32)}
    found = {}
    for factor in (None, 1.0, 8.0):
        train = tiny.get_config("adamw").train
        train.warmup_steps = 1
        if factor:
            train.embedding_rate = factor
        optimizer = make_optimizer(ml_collections.FrozenConfigDict(train))
        state, update = optimizer.init(params), jax.jit(optimizer.update)
        for _ in range(2):
            made, state = update(params, state, params)
        found[factor] = jax.device_get(made)
    for name, by in (("embedding", 8), ("weight", 1)):
        np.testing.assert_array_equal(found[None][name], found[1.0][name])
        np.testing.assert_allclose(found[8.0][name], by * found[1.0][name], rtol=1e-5)
        assert found[1.0][name].all()


def test_metrics_survive_a_line_cut_short(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 2, "loss": 1.0}) + '\n{"step": 4, "lo')
    assert read_metrics(str(path)) == [{"step": 2, "loss": 1.0}]
