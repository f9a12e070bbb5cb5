"""The whole plan of a tiny pair: by arithmetic anywhere, compiled where libtpu is installed."""

import dataclasses
import importlib.util

import pytest

from speccascade.plan import planning, program, report, subject, topology
from speccascade.sharding.chips import GIB
from tests.plan import tiny

compiles = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="compiling for TPUs needs libtpu: pip install -r requirements-tpu.txt",
)


def planned(slice_, weights="bfloat16"):
    return planning.plan(subject.load(tiny.config(), weights=weights), slice_, 0.8, confirm=False)


def uncompiled():
    """Returns a plan for chips so small that the compiler is not even asked."""
    slice_ = tiny.fake()
    small = dataclasses.replace(slice_.chip, hbm_bytes=1000)
    return planned(dataclasses.replace(slice_, chip=small))


def test_what_does_not_fit_says_by_how_much():
    found = uncompiled()
    assert found.program is None and not found.fits
    over = (found.total - 1000) / GIB
    text = report.render(found, ["--topology=v5e:2x4"])
    assert f"**Does not fit**: {over:.2f} GiB" in text and "--topology=v5e:2x4" in text


def test_a_plan_by_arithmetic_alone():
    found = dataclasses.replace(uncompiled(), slice_=tiny.fake())
    assert found.fits
    text = report.render(found, [])
    assert "By arithmetic alone" in text and "**Fits**" in text
    # A chip's rates divided by what a tiny pair asks for: the hops are all that is left.
    assert found.block.expert.time.bound == "exchange"


@pytest.mark.parametrize(
    ("message", "size"),
    [
        ("RESOURCE_EXHAUSTED: HLO temporaries (47.98G) exceeds available HBM (15.75G).", 47.98),
        ("RESOURCE_EXHAUSTED: Used 16.50G of 15.75G hbm. Exceeded by 768.00M", 16.5),
    ],
)
def test_the_compilers_refusal_is_read(message, size):
    assert program.TooLarge(message).needed == int(size * GIB)
    assert program.TooLarge("RESOURCE_EXHAUSTED: no more").needed == 0


@compiles
@pytest.mark.parametrize(
    ("name", "weights"), [("v5e:2x2", "bfloat16"), ("v4:2x2x1", "bfloat16"), ("v5e:2x2", "int8")]
)
def test_compiled_for_a_slice(name, weights):
    found = planned(topology.describe(name), weights)
    compiled = found.program
    assert found.fits and compiled.code > 0
    assert compiled.aliased == compiled.cached == 2 * 3  # keys and values of three layers
    # The compiler pads arrays to its tiles; it cannot need less than they hold.
    assert compiled.arguments >= found.parts.arguments
    assert compiled.prefill_arguments >= found.parts.arguments - found.parts.state
    assert compiled.needed >= compiled.arguments + compiled.temporaries + compiled.code
    in_loop = [c for c in compiled.collectives if c.in_loop]
    assert in_loop and not [c for c in in_loop if c.has_size({520, 260, 10 + 9 + 4})]
    text = report.render(found, [])
    assert "None carries an axis of the vocabulary or of a cache." in text
    assert f"{compiled.cached} of {compiled.cached} arrays are overwritten" in text


@compiles
def test_the_compiler_refuses_what_does_not_fit():
    large = subject.load(tiny.config(batch_size=4_000_000))
    with pytest.raises(program.TooLarge) as caught:
        program.compile_both(large.inputs(topology.describe("v5e:2x2")))
    assert caught.value.needed > topology.CHIPS["v5e"].hbm_bytes
