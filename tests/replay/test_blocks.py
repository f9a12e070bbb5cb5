"""Blocks over an answer against enumeration of what each of its positions may come to."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from speccascade.replay import blocks

chances = st.lists(st.floats(0, 1), min_size=1, max_size=7)


def enumerated(rejection, ends, draft_length):
    """Returns blocks, tests and rejections, by walking every outcome of every position."""
    totals = np.zeros(3)
    for outcome in itertools.product((False, True), repeat=len(rejection)):
        weight, counts = 1.0, np.zeros(3)
        for chance, rejected in zip(rejection, outcome, strict=True):
            weight *= chance if rejected else 1 - chance
        at, kept = 0, None
        while at < len(rejection):
            if kept is None:
                counts[0] += 1
                kept = 0
            if kept == draft_length or ends[at]:
                kept = None
            else:
                counts[1] += 1
                counts[2] += outcome[at]
                kept = None if outcome[at] else kept + 1
            at += 1
        totals += weight * counts
    return totals


@given(chances, st.integers(1, 4), st.integers(0, 127))
def test_what_is_expected_of_blocks(rejection, draft_length, mask):
    ends = [bool(mask >> i & 1) for i in range(len(rejection))]
    found = blocks.expected(np.array(rejection), np.array(ends), draft_length)
    np.testing.assert_allclose(found, enumerated(rejection, ends, draft_length), atol=1e-9)


@given(chances, st.integers(1, 4), st.data())
def test_more_rejections_are_never_fewer_blocks(rejection, draft_length, data):
    more = [data.draw(st.floats(chance, 1)) for chance in rejection]
    ends = np.zeros(len(rejection), bool)
    few, many = (
        blocks.expected(np.array(each), ends, draft_length).calls for each in (rejection, more)
    )
    assert few <= many + 1e-9


def test_without_rejections_a_block_is_a_token_longer_than_its_draft():
    assert blocks.expected(np.zeros(12), np.zeros(12, bool), 3).calls == 3
    assert blocks.expected(np.ones(12), np.zeros(12, bool), 3).calls == 12
