"""A stream of answers is what fixed batches answer: every method, several settings, any order."""

import numpy as np
import pytest

import speccascade
from speccascade.errors import UserError
from speccascade.inference import stream
from speccascade.inference.engine import Engine, Request
from speccascade.inference.reading import setting
from tests import tiny_pair

SLOTS = 4
COMMON = {"draft_length": 2}
MIXED = [
    {"rule": "token_v3", "alpha": 0.2, "temperature": 1.0, **COMMON},
    {"rule": "mixture", "alpha": 0.5, "temperature": 1.0, "seed": 3, **COMMON},
    {"rule": "token_v3", "alpha": 0.8, **COMMON},
]
PROGRAMS = {
    "mixed": MIXED,
    "spec": [{"rule": "spec", "temperature": t, **COMMON} for t in (0.0, 1.0)],
    "expert": [{"method": "autoregressive_expert", "temperature": 1.0}],
    "drafter": [{"method": "autoregressive_drafter", "drafter_top_k": 5, "temperature": 1.0}],
    "lookup": [{"rule": "spec", "drafter": "lookup", "temperature": 1.0, **COMMON}],
    "three": [
        {"rule": "token_v3", "alpha": 0.4, "middle_rule": "chow", "middle_alpha": a, **COMMON}
        | {"middle_draft_length": 2, "temperature": 1.0}
        for a in (0.2, 0.7)
    ],
    "token_cascade": [{"method": "token_cascade", "rule": "chow", "alpha": 0.3}],
    "sequence_cascade": [{"method": "sequence_cascade", "threshold": -1.0}],
}


@pytest.fixture(scope="module")
def engine():
    pair = tiny_pair.make(roles=tiny_pair.MIDDLE)
    return Engine.build(pair, [[5] * 60], max_new_tokens=12, stop_strings=["1", "a "])


def prompts(count):
    """Returns prompts of few and many tokens."""
    rng = np.random.default_rng(count)
    return [rng.integers(5, 300, n).tolist() for n in rng.integers(1, 61, count)]


def items(engine, name, count=7):
    """Returns settings and requests of a program: every setting asks every prompt."""
    chosen = [setting(entry) for entry in PROGRAMS[name]]
    asked = [engine.request(p, i, "it") for i, p in enumerate(prompts(count))]
    asked = [r._replace(max_new_tokens=12 - 3 * (i % 4)) for i, r in enumerate(asked)]
    return [s for s in chosen for _ in asked], [r for _ in chosen for r in asked], chosen


def told(parts):
    """Returns what became of each prompt, and counts as numbers."""
    found = {}
    for answer in (answer for part in parts for answer in part):
        own = answer.output
        counts = {k: float(v) for k, v in own.stats.by_name().items()}
        tokens = own.tokens[: own.num_tokens].tolist()
        found[answer.index] = tokens, bool(own.finished), counts
        assert not own.invalid and answer.seconds > 0
    return [found[i] for i in range(len(found))]


def assert_same(found, expected):
    for (tokens, finished, counts), own in zip(found, expected, strict=True):
        assert (tokens, finished, counts.keys()) == (own[0], own[1], own[2].keys())
        np.testing.assert_allclose([*counts.values()], [*own[2].values()], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_stream_answers_as_fixed_batches(engine, name):
    settings, requests, kinds = items(engine, name)
    assert stream.refilled(engine, kinds[0], SLOTS) == ("cascade" not in name)
    expected = told(stream.in_batches(engine, settings, requests, kinds, SLOTS))
    assert len({len(tokens) for tokens, _, _ in expected}) > 2
    assert_same(told(stream.answers(engine, settings, requests, kinds, SLOTS)), expected)
    order = np.random.default_rng(0).permutation(len(requests))
    settings, requests = ([x[i] for i in order] for x in (settings, requests))
    again = told(stream.answers(engine, settings, requests, kinds, SLOTS))
    assert_same(again, [expected[i] for i in order])


def test_short_prompts_have_a_cache_of_their_own():
    long = Engine(None, np.zeros((1, 9)), (), prompt_slots=2048, max_new_tokens=4)

    def groups(lengths, slots=2):
        requests = [Request([5] * n, 0, 4) for n in lengths]
        return stream.groups(long, requests, slots)

    many = stream.WORTH * 2
    lengths = [60] * many + [2000] + [100] * (many - 2) + [1000, 50]
    # The 50 join the 60; of 100 there are too few, and so of 1000: they join the longest.
    assert groups(lengths) == [
        (2048, [*range(many, 2 * many)]),
        (64, [*range(many), 2 * many]),
    ]
    assert groups([9] * many) == [(16, [*range(many)])]
    assert groups([9] * (many - 1)) == [(2048, [*range(many - 1)])]
    assert groups([]) == []


@pytest.mark.slow
def test_groups_answer_as_one(engine):
    chosen = setting({"method": "autoregressive_drafter"})
    lengths = [40, 3, 5, 50, 7, 9, 60, 11] + [13] * 12
    requests = [engine.request([5 + n] * n, i, "it") for i, n in enumerate(lengths)]
    several = [chosen] * len(requests), requests, [chosen], SLOTS
    assert [w for w, _ in stream.groups(engine, requests, SLOTS)] == [64, 16]
    expected = told(stream.in_batches(engine, *several))
    assert_same(told(stream.answers(engine, *several)), expected)


def test_many_prompts_of_a_call_are_a_stream():
    pair = tiny_pair.make()
    texts = [tiny_pair.PROMPT[:n] for n in range(3, 14)]
    how = {"method": "autoregressive_drafter", "temperature": 1.0, "max_new_tokens": 12}
    together = speccascade.generate_text(pair, texts, **how)
    assert len({len(answer.tokens) for answer in together}) > 1
    assert speccascade.generate_text(pair, texts, batch_size=SLOTS, **how) == together
    with pytest.raises(UserError, match="batch_size=0 must be at least 1"):
        speccascade.generate_text(pair, texts, batch_size=0, **how)
