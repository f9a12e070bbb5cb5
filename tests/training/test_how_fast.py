"""How fast a training is: what its steps have to do, over their time and a chip's peak."""

import glob
import itertools
import math
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from speccascade import models
from speccascade.models import costs
from speccascade.sharding import chips
from speccascade.training import steps
from speccascade.training.data import Problems
from speccascade.training.objective import Objective
from speccascade.training.step import Work
from speccascade.workdir import checkpoints
from speccascade.workdir.training_metrics import read_metrics

SIZES = {"vocab_size": 40, "d_model": 16, "num_heads": 4, "head_dim": 8, "d_ff": 24}
MODELS = {
    "decoder_only": {**SIZES, "num_layers": 2, "num_kv_heads": 2},
    "untied": {**SIZES, "num_layers": 1, "num_kv_heads": 4, "tie_embeddings": False},
    "window": {**SIZES, "num_layers": 2, "num_kv_heads": 2, "window": 3},
    "encoder_decoder": {**SIZES, "num_layers": 2, "num_decoder_layers": 3, "num_buckets": 4},
}
PROMPT, ANSWER, ROWS = 6, 4, 3


def model_of(name):
    family = name if name == "encoder_decoder" else "decoder_only"
    return models.build({"family": family, **MODELS[name]})


def products(jaxpr):
    """Returns the operations of all products of a program."""
    total = 0
    for eqn in jaxpr.eqns:
        inner = (getattr(value, "jaxpr", value) for value in eqn.params.values())
        total += sum(products(program) for program in inner if hasattr(program, "eqns"))
        if eqn.primitive.name == "dot_general":
            (summed, _), _ = eqn.params["dimension_numbers"]
            ways = math.prod(eqn.invars[0].aval.shape[axis] for axis in summed)
            total += 2 * ways * math.prod(eqn.outvars[0].aval.shape)
    return total


def hidden(name):
    """Pairs of tokens of a row that a program scores, and that do not see each other."""
    if name == "encoder_decoder":
        return 3 * (ANSWER * (ANSWER - 1) // 2)
    size = PROMPT + ANSWER
    seen = [min(i + 1, MODELS[name].get("window", size)) for i in range(size)]
    return MODELS[name]["num_layers"] * (size**2 - sum(seen))


@pytest.mark.parametrize("name", MODELS)
def test_operations_are_those_of_the_program(name):
    model = model_of(name)
    texts = jnp.ones((ROWS, PROMPT), int), jnp.full(ROWS, PROMPT), jnp.ones((ROWS, ANSWER), int)
    program = jax.make_jaxpr(model.answer_logits)(models.shapes(model), *texts)
    lengths = (np.full(ROWS, size) for size in (PROMPT, ANSWER, ANSWER))
    masked = 4 * SIZES["num_heads"] * SIZES["head_dim"] * hidden(name) * ROWS
    assert costs.scoring(model, *lengths) == products(program.jaxpr) - masked


def test_padding_is_no_work():
    model = model_of("decoder_only")
    tokens, prompt, length = np.ones((2, 30), np.int32), np.array([3, 5]), np.array([9, 7])
    rows = np.arange(2)
    for weight in (0.0, 0.5):
        objective = Objective(model, 40, weight, teacher=model)
        wide, narrow = (Problems(tokens[:, :w], prompt, length) for w in (30, 9))
        found = objective.work(objective.batch(wide, rows))
        assert found == objective.work(objective.batch(narrow, rows))
        scored = length if weight else length - prompt
        once = costs.scoring(model, prompt, length - prompt, scored)
        assert found == Work(16, pytest.approx(4 * once))  # there, back twice, and the teacher


def run(workdir, **how):
    """Runs six steps that do nothing, each of 100 tokens and 1e6 operations."""
    counts = {"num_steps": 6, "log_every": 2, "eval_every": 6, "checkpoint_every": 6}
    start = {"w": jnp.zeros(3)}, {"s": jnp.zeros(3)}

    def advance(params, state, number, batch):
        loss = jnp.sum(params["w"]) + number + batch
        return params, state, {"loss": loss}, Work(100, 1e6)

    given = start, itertools.count, advance, lambda _: {"accuracy": 0.5}, "accuracy"
    with checkpoints.manager(str(workdir)) as saved:
        steps.run(counts, str(workdir), saved, *given, **how)
    return [row for row in read_metrics(str(workdir / "metrics.jsonl")) if "loss" in row]


def events(workdir):
    """Returns what TensorBoard shows, by tag and step."""
    (path,) = glob.glob(str(workdir / "tb/events.*"))
    data, at, found = open(path, "rb").read(), 0, {}
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        at += size + 16
    return found


def test_a_chip_that_is_known_has_a_share_of_its_peak(tmp_path, monkeypatch):
    chip = chips.CHIPS["v5e"]
    monkeypatch.setattr(chips, "of", lambda device: chip)
    rows = run(tmp_path)
    shown = events(tmp_path)
    assert len(rows) == 3
    for row in rows:
        seconds = row["seconds_per_step"]
        assert row["tokens_per_second"] * seconds == pytest.approx(100)
        assert row["share_of_peak"] * seconds * chip.flops == pytest.approx(1e6)
        for tag in ("loss", "tokens_per_second", "share_of_peak"):
            assert shown[tag, row["step"]] == pytest.approx(row[tag], rel=1e-6)
    assert shown["accuracy", 6] == 0.5


def test_a_device_that_is_not_known_has_none_and_is_traced(tmp_path):
    rows = run(tmp_path, profile=str(tmp_path / "profile"))
    assert all("share_of_peak" not in row and row["tokens_per_second"] > 0 for row in rows)
    (path,) = glob.glob(str(tmp_path / "profile/**/*.xplane.pb"), recursive=True)
    planes = jax.profiler.ProfileData.from_file(path).planes
    named = [event for plane in planes for line in plane.lines for event in line.events]
    traced = [dict(event.stats)["step_num"] for event in named if event.name == "train"]
    assert sorted(traced) == [2, 3, 4]


def test_a_trace_of_a_training_that_is_done_is_said(tmp_path, capsys):
    run(tmp_path)
    run(tmp_path, profile=str(tmp_path / "profile"))
    told = f"nothing is left to trace: {tmp_path} has all its 6 steps; take a new workdir"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "profile").exists()
