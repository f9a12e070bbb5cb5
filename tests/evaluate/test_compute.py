import numpy as np
import pytest

from speccascade.evaluate import compute
from speccascade.inference.engine import Engine
from speccascade.inference.reading import setting
from tests import tiny_pair

COUNTS = {"drafter_calls": 24.0, "middle_calls": 6.0, "expert_calls": 4.0, "emitted": 12.0}
FIVE = {"draft_length": 5}


@pytest.fixture(scope="module")
def pair():
    return tiny_pair.make()


def by_hand(role: str, vocab: int) -> int:
    """Multiply-adds of a tiny model: attention, a gated feed-forward layer, the head."""
    width, heads, kv_heads, head_dim, d_ff = tiny_pair.WIDTHS[role], 2, 1, 4, 16
    attention = width * head_dim * (heads + 2 * kv_heads) + heads * head_dim * width
    return attention + 3 * width * d_ff + width * vocab


@pytest.mark.parametrize("role", tiny_pair.WIDTHS)
def test_a_position_goes_through_every_matrix_once(pair, role):
    found = compute.multiply_adds(pair.models[role], pair.params[role])
    assert found == by_hand(role, pair.tokenizer.vocab_size)  # the embedding is looked up


@pytest.mark.parametrize(
    ("entry", "positions"),
    [
        ({"rule": "token_v3", "alpha": 0.1, **FIVE}, (24, 24)),  # N + 1 passes a block
        ({"rule": "spec", **FIVE}, (28, 24)),  # N passes, the first of two tokens
        ({"method": "token_cascade", "rule": "chow", "alpha": 0.1}, (24, 32)),
        ({"method": "sequence_cascade", "threshold": -1.0}, (24, 4)),
    ],
)
def test_all_that_was_scored_counts(pair, entry, positions):
    chosen = setting(entry)
    assert chosen.method.scored(chosen, COUNTS) == dict(
        zip(("drafter", "expert"), positions, strict=True)
    )
    size = pair.tokenizer.vocab_size
    total = positions[0] * by_hand("drafter", size) + positions[1] * by_hand("expert", size)
    assert compute.per_token(pair, chosen, COUNTS) == pytest.approx(total / 12)


@pytest.mark.parametrize(
    ("outer", "inner", "drafter", "middle"),
    [
        ("token_v3", "token_v3", 24, 6 * 3),  # every pass goes on where the last one ended
        ("token_v3", "spec", 24 + 6, 6 * 3),
        ("spec", "token_v3", 24 + 6, 6 * 4),  # the token before the newest is read again
    ],
)
def test_rounds_of_three_models(outer, inner, drafter, middle):
    knobs = {"alpha": 0.1} if outer == "token_v3" else {}
    knobs |= {"middle_alpha": 0.1} if inner == "token_v3" else {}
    chosen = setting(
        {"rule": outer, "middle_rule": inner, "middle_draft_length": 2, **FIVE, **knobs}
    )
    assert chosen.method.scored(chosen, COUNTS) == {
        "drafter": drafter,
        "middle": middle,
        "expert": 24,
    }


def test_decoding_alone_costs_one_position_a_token(pair):
    engine = Engine.build(pair, [pair.tokenizer.encode(tiny_pair.PROMPT)], max_new_tokens=6)
    request = engine.request([5, 6, 7], 100, "it")
    for role in tiny_pair.WIDTHS:
        alone = setting({"method": f"autoregressive_{role}"})
        stats = engine.prepare([alone] * 8, [request] * 8, [alone])().stats.by_name()
        counts = {name: float(np.sum(values)) for name, values in stats.items()}
        model = pair.models[role]
        expected = compute.multiply_adds(model, pair.params[role])
        assert compute.per_token(pair, alone, counts) == expected


def test_drafter_passes_are_counted_as_they_were_run(pair):
    """What is added for a block's first pass follows from how many passes the drafter took."""
    engine = Engine.build(pair, [pair.tokenizer.encode(tiny_pair.PROMPT)], max_new_tokens=6)
    request = engine.request([5, 6, 7], 100, "it")
    for rule, passes in (("spec", 2), ("token_v3", 3)):
        knobs = {"alpha": 0.2} if rule == "token_v3" else {}
        chosen = setting({"rule": rule, "draft_length": 2, **knobs})
        stats = engine.prepare([chosen] * 8, [request] * 8, [chosen])().stats.by_name()
        blocks = stats["expert_calls"][0]
        assert stats["drafter_calls"][0] == passes * blocks
        counts = {"drafter_calls": stats["drafter_calls"][0], "expert_calls": blocks}
        assert chosen.method.scored(chosen, counts) == {"drafter": 3 * blocks, "expert": 3 * blocks}


def test_nothing_generated_has_no_cost_per_token(pair):
    alone = setting({"method": "autoregressive_expert"})
    assert compute.per_token(pair, alone, {**COUNTS, "emitted": 0.0}) is None
