"""Every kind of token, on tables: by hand, and against a plain loop over many random blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import rules
from speccascade.decode.drafters import Dense, Draft
from speccascade.decode.step import Record
from speccascade.rules import Distributions
from speccascade.trace import record as record_lib
from speccascade.trace.record import Kind, Reason, Writer
from speccascade.verify import Uniforms, Verdict, law, verify

VOCAB, SIZE = 4, 3
# "é" is cut into two tokens; id 0 is special and ends a text.
BYTES = [b"", b"a", "é".encode()[:1], "é".encode()[1:]]


def record_of(draft, q, p, pi, deferral, kept, next_token, emitted, length=None):
    """Returns a record of a batch from arrays."""
    batch = len(draft)
    length = np.full(batch, SIZE) if length is None else length
    ones = np.ones(batch, bool)
    draft, q, length, ones = map(jnp.asarray, (draft, q, length, ones))
    drafted = Draft(draft, Dense(q, q), length, {"drafter": length}, ones)
    verdict = Verdict(jnp.asarray(kept), jnp.asarray(next_token))
    return Record(drafted, *map(jnp.asarray, (p, pi, deferral)), verdict, jnp.asarray(emitted))


def by_hand(*, r, p_of_draft, u, kept, next_token=3, emitted=None, draft=(1, 2, 3), last=False):
    """Returns the block of a position rule that decides r, whose drafter gives each draft token
    0.8, and whose expert gives them `p_of_draft`."""

    def table(values):
        rows = np.full((SIZE + 1, VOCAB), 0.0, np.float32)
        for row, token, value in zip(rows, (*draft, 0), (*values, 0.25), strict=True):
            row[:] = (1 - value) / (VOCAB - 1)
            row[token] = value
        return rows

    q, p = table((0.8,) * SIZE), table(p_of_draft)
    defers = np.array([*r, False])
    pi = np.where(defers[:, None], p, q)
    emitted = kept + 1 if emitted is None else emitted
    record = record_of(
        np.array([draft]),
        q[None],
        p[None],
        pi[None],
        defers[None].astype(np.float32),
        np.array([kept]),
        np.array([next_token]),
        np.array([emitted]),
    )
    uniforms = Uniforms(jnp.asarray([u], jnp.float32), jnp.asarray([0.5]))
    numbers = record_lib.numbers(record, uniforms, "token")
    writer = Writer(lambda i: BYTES[i], eos_ids=(0,))
    return writer.block(numbers, 0, "token", last)


def kinds(tokens):
    return [token.kind for token in tokens]


def test_deferred_and_not_deferred_drafts_that_strict_verification_keeps_too():
    block = by_hand(r=(False, True, False), p_of_draft=(0.8, 0.6, 0.8), u=(0.9, 0.5, 0.9), kept=3)
    assert kinds(block.tokens) == [Kind.KEPT, Kind.DEFERRED, Kind.KEPT, Kind.BONUS]
    assert block.strict_kept == 3 and block.strict_cut is None and not block.discarded
    first, second, _, bonus = block.tokens
    assert (first.q, first.p, first.pi, first.accept) == pytest.approx((0.8, 0.8, 0.8, 1.0))
    assert (second.pi, second.accept, second.strict_accept) == pytest.approx((0.6, 0.75, 0.75))
    assert second.draw == pytest.approx(0.5)
    assert (first.deferred, second.deferred) == (False, True) and first.strict_keeps
    assert bonus.offset == 3 and bonus.accept is None and not bonus.drafted


def test_the_rule_keeps_what_strict_verification_cuts():
    # u q = 0.72 is not below p = 0.1 at offset 1; at offset 2 strict verification is past its cut.
    block = by_hand(r=(False,) * 3, p_of_draft=(0.8, 0.1, 0.8), u=(0.9, 0.9, 0.1), kept=3)
    assert kinds(block.tokens) == [Kind.KEPT, Kind.RULE, Kind.RULE, Kind.BONUS]
    assert block.strict_kept == block.strict_cut == 1
    assert [token.strict_keeps for token in block.tokens] == [True, False, False, None]
    assert block.strict_next.id != 2  # drawn from what p has beyond q


def test_a_replaced_token_and_what_was_drafted_in_vain():
    # Deferred at offset 1 and rejected there, by the expert's law: strict verification agrees.
    block = by_hand(r=(True,) * 3, p_of_draft=(0.8, 0.1, 0.8), u=(0.9, 0.9, 0.1), kept=1)
    assert kinds(block.tokens) == [Kind.DEFERRED, Kind.REPLACED]
    assert kinds(block.discarded) == [Kind.DISCARDED] * 2
    assert [token.reason for token in block.discarded] == [Reason.REJECTED, Reason.AFTER]
    assert [token.offset for token in (*block.tokens, *block.discarded)] == [0, 1, 1, 2]
    assert block.strict_kept == 1 and block.strict_cut is None


def test_a_block_in_which_the_answer_ends():
    # All three are kept, and the row takes the first two.
    block = by_hand(
        r=(False,) * 3, p_of_draft=(0.8,) * 3, u=(0.1,) * 3, kept=3, emitted=2, draft=(1, 0, 1)
    )
    assert kinds(block.tokens) == [Kind.KEPT, Kind.KEPT]
    assert block.tokens[1].ends and block.tokens[1].text == ""
    assert [token.reason for token in block.discarded] == [Reason.END]


def test_characters_cut_into_tokens():
    whole = by_hand(r=(False,) * 3, p_of_draft=(0.8,) * 3, u=(0.1,) * 3, kept=3)
    assert [token.text for token in whole.tokens] == ["a", "", "é", "\ufffd"]
    # The rejected draft goes on from where it was cut, and so does its replacement.
    cut = by_hand(r=(True,) * 3, p_of_draft=(0.8, 0.8, 0.0), u=(0.1, 0.1, 0.9), kept=2)
    assert [token.text for token in cut.tokens] == ["a", "", "é"]
    assert [token.text for token in cut.discarded] == ["é"]
    # An answer that ends inside a character says so.
    end = by_hand(
        r=(True,) * 3, p_of_draft=(0.8, 0.0, 0), u=(0.1, 0.9, 0), kept=1, next_token=2, last=True
    )
    assert [token.text for token in end.tokens] == ["a", "\ufffd"]


# ---- many random blocks against a plain loop ----

RULES = [
    rules.make("spec"),
    rules.make("lossy", alpha=0.5),
    rules.make("opt", alpha=0.2),
    rules.make("token_v3", alpha=0.5),
    rules.make("topk_relaxed", alpha=0.3, k=2),
]
BATCH = 400
decide = jax.jit(verify, static_argnames="method")
law_of = jax.jit(law, static_argnames="method")


@jax.jit
def targets(rule, d):
    """Returns a rule's target and its r."""
    knobs = {**rule.knobs, **dict(rule.static_knobs)}
    return rules.apply(rule, d), rules.RULES[rule.name].target(d, knobs, rules.WHOLE)[1]


def random_case(rule, method, seed):
    """Returns random blocks as a record, its uniforms and the rule's r (None where it has none)."""
    rng = np.random.default_rng(seed)

    def tables():
        logits = 1.5 * rng.normal(size=(BATCH, SIZE + 1, VOCAB))
        weights = np.exp(logits)
        return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)

    q, p = tables(), tables()
    target, r = targets(rule, Distributions(q, p, q, p))
    r = None if r is None else np.broadcast_to(np.asarray(r), q.shape)
    draft = np.array(
        [[rng.choice(VOCAB, p=row / row.sum()) for row in rows[:SIZE]] for rows in q.astype(float)]
    )
    length = rng.integers(0, SIZE + 1, BATCH)
    uniforms = Uniforms(
        jnp.asarray(rng.uniform(size=(BATCH, SIZE)), jnp.float32),
        jnp.asarray(rng.uniform(size=BATCH), jnp.float32),
    )
    verdict = decide(
        None,
        jnp.asarray(draft),
        jnp.asarray(q[:, :SIZE]),
        target.pi,
        length=jnp.asarray(length),
        method=method,
        uniforms=uniforms,
    )
    kept = np.asarray(verdict.num_accepted)
    emitted = np.minimum(kept + 1, rng.integers(1, 2 * SIZE, BATCH))
    record = record_of(
        draft, q, p, target.pi, target.deferral, kept, verdict.next_token, emitted, length
    )
    return record, uniforms, r


@pytest.mark.parametrize("method", ["token", "block"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_random_blocks(rule, method):
    record, uniforms, r = random_case(rule, method, seed=len(rule.name))
    numbers = jax.device_get(record_lib.numbers(record, uniforms, method))
    record, uniforms = jax.device_get((record, uniforms))
    draft, q, p, pi, u = (
        *(record.draft.tokens, record.draft.q.q, record.p, record.pi),
        uniforms.accept,
    )
    # Strict verification, asked apart.
    options = {"length": record.draft.length, "method": method}
    strict = decide(None, draft, q[:, :SIZE], p, uniforms=uniforms, **options)
    chances, _ = law_of(draft, q[:, :SIZE], pi, **options)
    strict, chances = jax.device_get((strict, chances))
    seen = set()
    for b in range(BATCH):
        block = Writer(lambda i: b"x", ()).block(numbers, b, method, False)
        length, kept = int(record.draft.length[b]), int(record.verdict.num_accepted[b])
        emitted = int(record.emitted[b])
        strict_kept = int(strict.num_accepted[b])
        if method == "token":  # in plain words
            passed = [u[b, i] * q[b, i, draft[b, i]] < p[b, i, draft[b, i]] for i in range(length)]
            assert strict_kept == ([*passed, False].index(False))
        assert block.strict_kept == strict_kept
        assert block.strict_next.id == strict.next_token[b]
        assert len(block.tokens) == emitted
        assert [t.offset for t in block.tokens] == list(range(emitted))
        assert [t.offset for t in block.discarded] == list(range(min(kept, emitted), length))
        for token in (*block.tokens, *block.discarded):
            i, kind = token.offset, token.kind
            at = q[b, i, token.id], p[b, i, token.id], pi[b, i, token.id]
            assert (token.q, token.p, token.pi) == pytest.approx(at)
            if token.drafted:
                assert token.id == draft[b, i] and token.strict_keeps == (i < strict_kept)
                assert token.deferred == (None if r is None else r[b, i, token.id])
            if token.drafted and method == "token":
                assert token.accept == pytest.approx(min(1, at[2] / at[0]))
                assert token.strict_accept == pytest.approx(min(1, at[1] / at[0]))
            if kind in (Kind.KEPT, Kind.DEFERRED, Kind.RULE):
                assert i < kept and (kind is Kind.RULE) == (i >= strict_kept)
                assert kind is Kind.RULE or (kind is Kind.DEFERRED) == bool(token.deferred)
            if kind in (Kind.REPLACED, Kind.BONUS):
                assert i == kept and token.id == record.verdict.next_token[b]
                assert (kind is Kind.BONUS) == (kept == length)
            if kind is Kind.DISCARDED:
                expected = Reason.REJECTED if i == kept else Reason.AFTER
                assert token.reason is (expected if emitted > kept else Reason.END)
            seen.add(kind)
        if emitted > length:  # a whole block: its chances are those of the law
            product = np.prod([t.accept for t in block.tokens if t.drafted])
            assert product == pytest.approx(float(chances[b, length]), rel=1e-4, abs=1e-6)
    expected = set(Kind) - {Kind.DEFERRED} if r is None else set(Kind)
    if rule.name == "spec":
        expected -= {Kind.RULE}
    # A position rule that defers nowhere it also cuts may lack a kind; none has one too many.
    assert seen == expected


def test_the_numbers_are_computed_in_one_program():
    record, uniforms, _ = random_case(RULES[2], "token", seed=0)
    before = record_lib.numbers._cache_size()
    record_lib.numbers(jax.tree.map(lambda x: jnp.asarray(np.array(x)), record), uniforms, "token")
    first = record_lib.numbers._cache_size()
    record_lib.numbers(record, uniforms, "token")
    assert record_lib.numbers._cache_size() == first <= before + 1
