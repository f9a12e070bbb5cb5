import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from speccascade import importing, pairs
from speccascade.distillation import imitation, texts, training
from speccascade.errors import UserError
from speccascade.inference.api import generate_text
from speccascade.models.shrink import shrink
from speccascade.sharding import chips
from speccascade.training.step import Step
from speccascade.workdir.parameter_files import flat
from speccascade.workdir.training_metrics import read_metrics
from tests.distillation import tiny
from tests.importing import tiny_t5_checkpoint
from tests.training import times

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny.expert(tmp_path_factory.mktemp("distillation") / "expert")


@pytest.fixture(scope="module")
def workdir(source, tmp_path_factory):
    """A whole run of the script."""
    workdir = str(tmp_path_factory.mktemp("drafter"))
    config = f"--config={ROOT}/tests/distillation/tiny.py:{source}"
    command = [sys.executable, "scripts/distill.py", config, f"--workdir={workdir}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("acceptance 0.") and "head_mass" in done.stdout
    return workdir


def logged(workdir):
    rows = read_metrics(f"{workdir}/metrics.jsonl")
    return times.without(rows)


@pytest.mark.slow
def test_the_drafter_learns_and_drafts_for_its_expert(source, workdir):
    losses = [row["loss"] for row in logged(workdir) if "loss" in row]
    assert losses[-1] < losses[0]
    pair = pairs.load({"drafter": workdir, "expert": source, "chat": True})
    assert pair.params["drafter"]["embedding"] is pair.params["expert"]["embedding"]
    assert pair.drafter.config.head_size == 200 and pair.context_length == 64
    prompts = ["Ann has 12 pens.", "hello, world!"]
    greedy = generate_text(pair, prompts, max_new_tokens=8, method="autoregressive_expert")
    drafted = generate_text(pair, prompts, max_new_tokens=8, rule="spec", draft_length=3)
    assert [a.tokens for a in greedy] == [a.tokens for a in drafted]
    sampled = generate_text(
        pair, prompts, max_new_tokens=8, rule="token_v3", alpha=0.5, draft_length=3, temperature=1.0
    )
    assert all(0 < len(a.tokens) <= 8 for a in sampled)


@pytest.mark.slow
def test_in_other_dtypes_it_still_knows_its_expert(source, workdir):
    for options in ({"dtype": "bfloat16"}, {"weights": "int8"}):
        pair = pairs.load({"drafter": workdir, "expert": source, **options})
        (answer,) = generate_text(pair, ["Ann"], max_new_tokens=4, rule="spec", draft_length=2)
        assert answer.tokens


@pytest.mark.slow
def test_it_is_exported_without_its_expert(source, workdir, tmp_path):
    sources = {"drafter": workdir, "expert": source}
    out = str(tmp_path / "exported")
    pair = pairs.export_workdirs(sources, out, "tiny", dtype="float32", chat=True)
    assert {p.name for p in (tmp_path / "exported").iterdir()} == {
        "pair.json",
        "drafter.safetensors",
    }
    assert pair.chat and pair.context_length == 64
    assert pair.params["drafter"]["embedding"] is pair.params["expert"]["embedding"]
    trained = pairs.load({**sources, "dtype": "float32"})
    for key, leaf in flat(trained.params["drafter"]).items():
        got = flat(pair.params["drafter"])[key]
        # A matrix was rounded to int8, row by row.
        atol = np.abs(leaf).max(-1, keepdims=True) / 250 if leaf.ndim == 2 else 0
        assert got.dtype == leaf.dtype and np.all(np.abs(got - leaf) <= atol)
    description = json.loads((tmp_path / "exported" / "pair.json").read_text())
    assert description["expert"] == {"source": source, "dtype": "float32"}
    assert description["training"]["drafter"]["steps"] == 12
    how = {"max_new_tokens": 6}
    (drafted,) = generate_text(pair, ["Ann"], rule="spec", draft_length=2, **how)
    (greedy,) = generate_text(pair, ["Ann"], method="autoregressive_expert", **how)
    assert drafted.tokens == greedy.tokens


@pytest.mark.slow
def test_it_decodes_with_no_other_expert(source, workdir, tmp_path):
    with pytest.raises(UserError, match="it decodes only as the drafter of that expert"):
        importing.load(workdir)
    other = importing.load(source)
    other.params["embedding"] = other.params["embedding"][::-1]
    with pytest.raises(UserError, match="the expert of this pair has another one"):
        importing.load(workdir, expert=other.params)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_losses(source, workdir, tmp_path, monkeypatch):
    config, step = tiny.get_config(source), Step.__call__
    taken = []

    def interrupted(self, *args):
        taken.append(1)
        if len(taken) == 7:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(Step, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.distill(config, str(tmp_path))
    monkeypatch.undo()
    training.distill(config, str(tmp_path))
    assert logged(str(tmp_path)) == logged(workdir)


@pytest.mark.slow
def test_expert_and_drafter_may_lie_on_a_mesh(source, workdir, tmp_path):
    config = tiny.get_config(source)
    config.mesh = {"data": 2, "fsdp": 2, "model": 2}
    training.distill(config, str(tmp_path))
    one, other = (texts.load(epath.Path(w) / "texts", 20) for w in (workdir, tmp_path))
    np.testing.assert_array_equal(one.tokens, other.tokens)
    for expected, found in zip(logged(workdir), logged(str(tmp_path)), strict=True):
        assert expected.keys() == found.keys()
        for name, value in expected.items():  # features are kept in bfloat16
            np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_figures_are_means_over_what_the_expert_wrote(source, workdir):
    expert = importing.load(source)
    drafter = importing.load(workdir, expert=expert.params)
    found, _ = texts.load(epath.Path(workdir) / "texts", 20).split(5)
    got = imitation.evaluate(drafter.model, drafter.params, expert, found, batch_size=4)
    q = jax.nn.softmax(drafter.model.forward(drafter.params, found.tokens, found.prompt_length))
    p = jax.nn.softmax(expert.model.forward(expert.params, found.tokens, found.prompt_length))
    index = np.arange(1, found.tokens.shape[1])
    own = (index >= found.first[:, None]) & (index < found.length[:, None])
    q, p = np.asarray(q)[:, :-1][own], np.asarray(p)[:, :-1][own]
    ids = np.asarray(drafter.params["head"]["ids"])
    np.testing.assert_allclose(got["acceptance"], np.minimum(p, q).sum(-1).mean(), atol=5e-3)
    np.testing.assert_allclose(got["head_mass"], p[:, ids].sum(-1).mean(), atol=5e-3)
    agreement = (p.argmax(-1) == q.argmax(-1)).mean()
    np.testing.assert_allclose(got["greedy_agreement"], agreement, atol=0.05)


def test_the_head_knows_the_most_frequent_ids(source):
    expert = importing.load(source)
    tokens = np.array([[7, 7, 5, 9, 9, 9, 1, 0]], np.int32)
    one = np.array([1])
    features = texts.Features([np.zeros((1, 8, 1))])
    found = texts.Texts(tokens, one * 2, one * 2, one * 7, features, np.zeros((1, 8)))
    end = expert.tokenizer.eos_ids[0]
    # Of what it wrote itself, 5 9 9 9 1: the end of a text, 9, and the lower of 1 and 5.
    np.testing.assert_array_equal(training.head_ids(found, 3, expert), sorted([1, 9, end]))
    assert training.head_ids(found, None, expert) is None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("drafter.layers", (0, 5), r"layers=\[0, 5\] must be layers of the expert"),
        ("train.loss", "mse", "unknown distillation loss 'mse'"),
        ("train.validation_texts", 20, "must be below texts.num_texts=20"),
        ("train.checkpoint_every", 3, "must be a multiple of train.log_every"),
        ("train.optimizer", "sgd", "unknown train.optimizer 'sgd'"),
    ],
)
def test_bad_configs_leave_nothing_behind(source, tmp_path, field, value, message):
    config = tiny.get_config(source)
    section, name = field.split(".")
    config[section][name] = value
    with pytest.raises(UserError, match=message):
        training.distill(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_too_little_memory_is_told_before_anything_is_written(source, tmp_path, monkeypatch):
    """The drafter's own weights, two moments and gradients in float32, and the expert's weights."""
    expert, config = importing.load(source), tiny.get_config(source)
    own = flat(shrink(expert.model, expert.params, (0,), np.arange(200))[1])
    numbers = sum(x.size for key, x in own.items() if key not in ("embedding", "head/ids"))
    least = 16 * numbers + sum(x.nbytes for x in flat(expert.params).values())
    monkeypatch.setattr(chips, "memory", lambda device: least - 1)
    with pytest.raises(UserError, match=r"needs more than 0\.\d+ GiB on each device \(weights 0"):
        training.distill(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()

    def writes(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(chips, "memory", lambda device: least + 64)  # the optimizer counts steps
    monkeypatch.setattr(training.writing, "write", writes)
    with pytest.raises(KeyboardInterrupt):
        training.distill(config, str(tmp_path / "run"))


def test_rows_that_do_not_divide_over_the_mesh(source, tmp_path):
    config = tiny.get_config(source)
    config.mesh = {"data": 4, "model": 2}
    config.texts.batch_size = 6
    with pytest.raises(UserError, match="texts.batch_size=6 must be a multiple of 4, for the dev"):
        training.distill(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_encoder_decoder_gets_a_drafter_too(tmp_path):
    source = str(tiny_t5_checkpoint.write(tmp_path / "expert"))
    (tmp_path / "prompts.txt").write_text("\n".join(f"number {i}" for i in range(12)))
    config = tiny.get_config(source)
    config.texts.update(prompts=str(tmp_path / "prompts.txt"), chat=False, num_texts=10)
    config.texts.update(prompt_slots=16)
    config.drafter = {"layers": (0,), "encoder_layers": (1,), "head_size": 100}
    config.train.update(num_steps=4, validation_texts=2, loss="total_variation")
    training.distill(config, str(tmp_path / "drafter"))
    pair = pairs.load({"drafter": str(tmp_path / "drafter"), "expert": source})
    how = {"max_new_tokens": 6}
    (drafted,) = generate_text(pair, ["number 40"], rule="spec", draft_length=2, **how)
    (greedy,) = generate_text(pair, ["number 40"], method="autoregressive_expert", **how)
    assert drafted.tokens == greedy.tokens
    noted = json.loads((tmp_path / "drafter" / "shared.json").read_text())
    assert noted["expert"] == source and jnp.size(pair.params["drafter"]["head"]["ids"]) == 100
