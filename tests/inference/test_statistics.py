"""Counts of one answer, worked out by hand."""

import numpy as np
import pytest

from speccascade import decode
from speccascade.inference import metrics
from speccascade.inference.reading import setting


def output(blocks, accepted):
    """A row's output whose blocks added so many tokens."""
    emitted, calls = sum(blocks), len(blocks)
    zero = np.float32(0)
    counts = map(np.float32, (emitted, calls))
    stats = decode.Stats(*counts, {"drafter": zero}, zero, np.float32(accepted), *[zero] * 4)
    room = np.pad(np.array(blocks, np.int32), (0, 12 - calls))
    own = np.zeros(12, np.int32), np.int32(emitted), np.bool_(True), np.bool_(False)
    return decode.Output(*own, np.zeros(12), np.zeros(12), room, stats)


SPEC = setting({"rule": "spec", "draft_length": 3})


@pytest.mark.parametrize(
    ("blocks", "accepted", "kept", "by_position"),
    [
        # Each block's last token is the verifier's.
        ([3, 1, 4, 2], 6, [1, 1, 1, 1], [0.75, 0.5, 0.25]),
        # The last block ended within its draft: both of its tokens were drafted.
        ([3, 1, 4, 2], 7, [1, 0, 2, 1], [0.75, 0.75, 0.25]),
        ([3], 3, [0, 0, 0, 1], [1, 1, 1]),
        ([1], 0, [1, 0, 0, 0], [0, 0, 0]),
    ],
)
def test_acceptance_by_position(blocks, accepted, kept, by_position):
    counts = metrics.counts(output(blocks, accepted), SPEC)
    assert [counts[f"kept_{i}"] for i in range(4)] == kept
    rates = metrics.rates(counts, SPEC)
    assert rates["acceptance_by_position"] == pytest.approx(by_position)
    assert rates["tokens_per_expert_call"] == sum(blocks) / len(blocks)


def test_an_answer_without_a_block_and_a_method_without_blocks():
    counts = metrics.counts(output([], 0), SPEC)
    assert metrics.rates(counts, SPEC)["acceptance_by_position"] is None
    expert = setting({"method": "autoregressive_expert"})
    counts = metrics.counts(output([1, 1], 0), expert)
    assert "kept_0" not in counts
    rates = metrics.rates(counts, expert)
    assert rates["acceptance_by_position"] is rates["acceptance_of_drafted"] is None
