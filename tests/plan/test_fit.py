"""What fits, by arithmetic; slices are made of fake devices."""

import dataclasses

import pytest

from speccascade.errors import UserError
from speccascade.models import memory
from speccascade.plan import fit, planning, subject, topology
from tests.plan import tiny


def with_memory(slice_, size):
    return dataclasses.replace(slice_, chip=dataclasses.replace(slice_.chip, hbm_bytes=int(size)))


def test_parts_are_what_shapes_say():
    inputs = subject.load(tiny.config()).inputs(tiny.fake())
    found = fit.parts(inputs, tiny.fake())
    everything = memory.size((inputs.params, inputs.rows, inputs.state))
    assert found.arguments == everything
    assert found.rows == 2
    slots = 10 + 9 + 4
    assert found.caches["expert"] == 2 * 2 * 2 * 2 * 1 * slots * 16  # a head of two on each device


@pytest.mark.parametrize(
    ("change", "size"),
    [
        # Two rows of a device, two of the four heads, all tokens of the prompt by all slots.
        ({}, 4 * 2 * 2 * 10 * (10 + 9 + 4)),
        # A ring of window + N + 1 slots and the prompt itself, where all layers slide.
        ({"window": 3}, 4 * 2 * 2 * 10 * (3 + 4 + 10)),
    ],
)
def test_scores_of_a_prompt(change, size):
    inputs = subject.load(tiny.config({**tiny.MODEL, **change})).inputs(tiny.fake())
    assert memory.scores(inputs.decoder.expert, inputs.state.expert, 10) == size
    shorter = dataclasses.replace(inputs.decoder.expert, chunk=5)
    ring = 5 * size * (3 + 4 + 5) // (3 + 4 + 10) // 10
    expected = ring if change else size // 2
    assert memory.scores(shorter, inputs.state.expert, 10) == expected


def test_scores_of_an_encoder():
    inputs = subject.load(tiny.config(tiny.T5)).inputs(tiny.fake())
    assert memory.scores(inputs.decoder.expert, inputs.state.expert, 10) == 4 * 2 * 2 * 10 * 14
    long = subject.load(tiny.config(tiny.T5, prompt_length=40)).inputs(tiny.fake())
    assert memory.scores(long.decoder.expert, long.state.expert, 40) == 4 * 2 * 2 * 40 * 40


def test_the_largest_batch_fits_and_one_row_more_does_not():
    slice_ = with_memory(tiny.fake(), 300_000)
    asked = subject.load(tiny.config())
    rows = fit.parts(asked.inputs(slice_), slice_).largest_rows(300_000)
    assert rows > asked.batch_size // 2
    for more, fits in ((0, True), (1, False)):
        # The table of stops is no row's; it counts as one's share here.
        other = dataclasses.replace(asked, batch_size=2 * (rows + more))
        total = fit.parts(other.inputs(slice_), slice_).total
        assert (total <= 300_000) == fits or abs(total - 300_000) < 4 * 520


def test_no_batch_fits_where_the_weights_do_not():
    slice_ = tiny.fake()
    inputs = subject.load(tiny.config()).inputs(slice_)
    found = fit.parts(inputs, slice_)
    assert found.largest_rows(found.weights["expert"]) == 0


def test_alternatives_fit(monkeypatch):
    asked = subject.load(tiny.config(batch_size=64))
    total = fit.parts(asked.inputs(tiny.fake()), tiny.fake()).total
    size = 0.6 * total
    monkeypatch.setattr(topology, "describe", lambda name: with_memory(tiny.fake(name), size))
    monkeypatch.setattr(topology, "larger", {"v5e:2x2": "v5e:2x4", "v5e:2x4": None}.get)
    slice_ = with_memory(tiny.fake(), size)
    flags = fit.alternatives(asked, slice_)
    assert len(flags) >= 2
    for flag in flags:
        name, _, value = flag.partition("=")
        if name == "--batch_size":
            other, where = dataclasses.replace(asked, batch_size=int(value)), slice_
        elif name == "--topology":
            other, where = asked, with_memory(tiny.fake(value), size)
        elif name == "--weights":
            other, where = asked.stored_as(value), slice_
        else:
            continue
        assert fit.parts(other.inputs(where), where).total <= size * 1.01


def test_a_batch_must_divide():
    with pytest.raises(UserError, match="batch of 3 does not divide over the 2 devices"):
        subject.load(tiny.config(batch_size=3)).inputs(tiny.fake())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"plan.batch_size": 0}, "plan.batch_size=0"),
        ({"plan.prompt_length": "long"}, "plan.prompt_length=.long. must be a whole"),
        ({"plan.setting": {"rule": "nothing", "draft_length": 1}}, "nothing"),
        ({"plan.setting": {"method": "autoregressive_expert"}}, "only a rule"),
        ({"models": {"expert": tiny.MODEL}}, "the config lacks models.drafter"),
    ],
)
def test_configs_that_are_not_as_they_must_be(change, words):
    config = tiny.config()
    for path, value in change.items():
        *above, last = path.split(".")
        section = config[above[0]] if above else config
        del section[last]
        section[last] = value
    with pytest.raises(UserError, match=words):
        subject.load(config)


def test_a_config_without_models_names_what_it_lacks():
    config = tiny.config()
    del config.models
    with pytest.raises(UserError, match="lacks models"):
        subject.load(config)


@pytest.mark.parametrize("options", [{"weights": "int3"}, {"acceptance": 1.5}])
def test_arguments_are_checked_before_anything_is_made(options):
    common = {"slices": "v5e:2x2", "batch_size": None, "weights": "int8", "acceptance": 0.5}
    with pytest.raises(UserError, match=str(list(options.values())[0])):
        planning.run(tiny.config(), print, confirm=False, **{**common, **options})
