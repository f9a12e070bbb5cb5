"""What the training of a pair needs of a device: by arithmetic anywhere, compiled with libtpu."""

import dataclasses
import importlib.util

import jax
import pytest

from speccascade import models
from speccascade.errors import UserError
from speccascade.plan import planning, subject, training, training_report
from speccascade.plan.program import TooLarge
from speccascade.sharding import chips
from speccascade.sharding.chips import GIB
from speccascade.sharding.hlo import Array, Collective
from speccascade.training import loop, memory
from tests.plan import tiny
from tests.training import tiny as tiny_training

TRAIN = {
    **tiny_training.get_config().train,
    "batch_size": 8,
    "row_length": 19,
    "accumulate": 2,
    "prompt_weight": 0.0,
    "num_steps": 1000,
}


def config(mesh, model=tiny.MODEL, **train):
    """Returns a pair's config that fine-tunes both, the drafter taught by the expert."""
    made = tiny.config(model)
    sources = {"expert": "", "drafter": "expert"}
    made.fine_tuning = {
        role: {
            "mesh": dict(mesh),
            "model": {"dtype": "bfloat16"},
            "train": {**TRAIN, **train, "distill_from": source},
        }
        for role, source in sources.items()
    }
    return made


def trainings(slice_, mesh=None, **how):
    made = config(mesh or {"data": 1, "fsdp": 2, "model": 2}, **how)
    return training.load(made, subject.load(made), slice_)


def size(model, layers):
    shapes = models.shapes(models.build({**model, "num_layers": layers}))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_what_lies_in_memory_is_what_the_optimizer_says():
    expert, drafter = trainings(tiny.fake("v5e:1x1"), {"data": 1})
    numbers = size(tiny.MODEL, 2), size(tiny.MODEL, 1)
    for found, own, taught in ((expert, numbers[0], 0), (drafter, numbers[1], numbers[0])):
        needs = memory.needs(found.step)
        assert (needs.weights, needs.gradients, needs.teacher) == (4 * own, 4 * own, 4 * taught)
        assert 8 * own < needs.optimizer < 8 * own + 100  # two moments, and counts of steps
        assert needs.total == sum(dataclasses.astuple(needs))


def test_a_mesh_cuts_it():
    whole, _ = trainings(tiny.fake("v5e:1x1"), {"data": 1})
    cut, _ = trainings(tiny.fake())
    whole, cut = memory.needs(whole.step), memory.needs(cut.step)
    norms = 4 * 5 * 32  # lie whole
    assert cut.weights == (whole.weights - norms) // 4 + norms
    assert cut.gradients == cut.weights


def test_texts_are_as_long_as_they_may_be():
    expert, _ = trainings(tiny.fake())
    shapes = {name: array.shape for name, array in expert.batch.items()}
    assert shapes == {
        "prompt": (8, 32),  # of 10 tokens, in coarse steps
        "prompt_length": (8,),
        "answer": (8, 32),
        "answer_length": (8,),
    }
    assert expert.work.tokens == 8 * 19
    assert trainings(tiny.fake(), prompt_weight=0.5)[0].batch["tokens"].shape == (8, 19)


def test_what_cannot_fit_is_not_compiled():
    slice_ = tiny.fake()
    small = dataclasses.replace(slice_.chip, hbm_bytes=1000)
    found = training.plan(trainings(dataclasses.replace(slice_, chip=small))[1])
    assert found.program is None and not found.fits
    text = training_report.render(found)
    over = (found.needs.total - 1000) / GIB
    assert f"**Does not fit**: {over:.2f} GiB per device too much" in text
    assert "teacher's weights" in text and "taught by the expert" in text


def test_the_compilers_refusal_is_told():
    found = training.Plan(trainings(tiny.fake())[0], memory.Needs(1, 1, 1, 0), TooLarge("no room"))
    assert not found.fits
    assert "**Does not fit**: no room. Raise train.accum" in training_report.render(found)


def test_a_config_without_fine_tuning_has_no_training_to_plan():
    made = tiny.config()
    assert training.load(made, subject.load(made), tiny.fake()) == []


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"batch_size": 6, "accumulate": 1}, "train.batch_size=6 must be a multiple of 4"),
        ({"optimizer": "sgd"}, "unknown train.optimizer 'sgd'"),
        ({"row_length": 0}, "train.row_length=0 must be at least 1"),
    ],
)
def test_what_does_not_divide_is_told(train, message):
    with pytest.raises(UserError, match=message):
        trainings(tiny.fake(), {"data": 1, "fsdp": 4}, **train)


def test_weights_that_nothing_asks_for_whole_are_found():
    found, _ = trainings(tiny.fake())  # 48 x 32 of the feed-forward, cut in two and in two

    def one(shape, group, kind="all-gather"):
        return Collective(kind, (Array("f32", shape),), group, (), "", "x")

    allowed = [one((24, 32), 2), one((3, 48, 32), 4), one((48, 32), 4, "all-reduce")]
    bad = [one((48, 32), 2), one((24, 32), 4), one((48, 32), None, "collective-permute")]
    assert training.whole(found, [*allowed, *bad]) == bad


def test_too_little_memory_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(chips, "memory", lambda device: 10_000)
    made = tiny_training.get_config()
    with pytest.raises(UserError, match=r"needs more than 0\.\d+ GiB on each device \(weights 0"):
        loop.train(made, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_compiled_for_a_slice():
    made, said = config({"data": 1, "fsdp": 2, "model": 2}), []
    planning.run(made, said.append, slices="v5e:2x2")
    _, expert, drafter, together = said
    for text in (expert, drafter):
        assert "**Fits**" in text and "temporaries, compiled: gradients" in text
        assert "Weights are gathered along fsdp alone." in text
        assert "| all-reduce |" in text and "chip hours" in text
    for stage in ("training the expert", "training the drafter", "reading prompts", "decoding"):
        assert f"| {stage} |" in together


def test_the_larger_of_its_programs_counts():
    found, _ = trainings(tiny.fake())
    compiled = training.Program(gradients=300, update=20, code=5, collectives=[], seconds=1.0)
    planned = training.Plan(found, memory.Needs(100, 200, 100, 0), compiled)
    assert planned.total == 400 + 300 + 5 and planned.fits
    text = training_report.render(planned)
    ops = found.work.ops
    assert f"{found.work.tokens:,} tokens and {ops / 1e12:,.1f} TFLOP" in text
    hours = 1000 * ops / 4 / found.slice_.chip.flops / 3600
    assert f"1,000 steps take {hours:,.2g} hours at least, {4 * hours:,.2g} chip hours" in text


def test_what_is_exchanged_takes_its_time():
    found, _ = trainings(tiny.fake())
    array = (Array("f32", (1_000_000,)),)
    once = Collective("all-reduce", array, 2, (), "", "a")
    each = Collective("all-gather", array, 2, ("body",), "", "b")  # in both parts of the batch
    compiled = training.Program(0, 0, 0, [once, each], 1.0)
    text = training_report.render(training.Plan(found, memory.Needs(1, 1, 1, 0), compiled))
    sent = 2 * 0.5 * 4e6 + 2 * 0.5 * 4e6
    assert f"and {sent / found.slice_.bandwidth(2) * 1e3:,.1f} ms for what it exchanges" in text
    assert "| all-gather | 2 | 8.0 |" in text and "| all-reduce | 1 | 4.0 |" in text
