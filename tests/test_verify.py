"""The verifier: its law enumerated over sequences, and that `verify` realises it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from speccascade import verify
from speccascade.errors import UserError
from speccascade.vocab import Vocab
from tests import enumeration, toy_settings
from tests.verify_checks import (
    check_realises,
    check_sequences,
    check_support,
    rows,
    stated_law,
    worst,
)

# V, tokens in a context, N, emitted tokens; whether rows draft fewer than N.
CASES = [
    (3, 2, 1, 4, True),
    (3, 2, 2, 4, True),
    (3, 2, 3, 4, True),
    (3, 2, 4, 4, True),
    (3, 2, 4, 4, False),
    (4, 1, 2, 4, True),
    (4, 1, 3, 4, True),
    (5, 1, 3, 3, True),
]


def decide_both(method, draft, q, pi, uniforms):
    """Returns what `law` says of blocks, and what `verify` does."""
    return verify.law(draft, q, pi, method=method), verify.verify(
        None, draft, q, pi, method=method, uniforms=uniforms
    )


decide_jitted = jax.jit(decide_both, static_argnums=0)


# ---- the enumerated law of sequences ----


@functools.cache
def blocks_of(case, method):
    vocab, order, size, _, ragged = case
    settings = toy_settings.make_settings(vocab, order, size, ragged=ragged)
    return settings, enumeration.block_laws(settings, size, method)


@pytest.mark.parametrize("method", verify.METHODS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_sequences_follow_the_target(case, method):
    check_sequences(*blocks_of(case, method), limit=case[3])


@pytest.mark.parametrize("method", verify.METHODS)
def test_sequences_follow_the_target_in_float64(method):
    with jax.enable_x64(True):
        settings = toy_settings.make_settings(3, 2, 3, ragged=True, dtype=np.float64)
        check_sequences(settings, enumeration.block_laws(settings, 3, method), 4, tolerance=1e-13)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_block_accepts_no_less_than_token(case):
    settings, token = blocks_of(case, "token")
    gain = enumeration.accepted_tokens(blocks_of(case, "block")[1])
    gain -= enumeration.accepted_tokens(token)
    assert np.all(gain >= -1e-6), worst(settings.names, -gain)
    if case[2] > 1:
        assert gain.max() > 0.05  # and somewhere it accepts more


def test_methods_agree_when_greedy():
    settings, token = blocks_of(CASES[3], "token")
    block = blocks_of(CASES[3], "block")[1]
    greedy = np.all((settings.q == 0) | (settings.q == 1), (1, 2))
    greedy &= np.all((settings.pi == 0) | (settings.pi == 1), (1, 2))
    assert greedy.sum() > 50
    for i in range(len(token)):
        np.testing.assert_array_equal(token[i][greedy], block[i][greedy])


def test_rejection_probability_is_total_variation():
    settings = toy_settings.make_settings(3, 2, 3, ragged=True)
    tested, rejected, tv = enumeration.rejections(settings, 3)
    assert tested.max() > 0.9 and rejected.max() > 0.5
    np.testing.assert_allclose(rejected, tested * tv, atol=1e-6)


# ---- verify realises law ----


@pytest.mark.parametrize("method", verify.METHODS)
def test_verify_realises_law(method):
    check_realises(verify, method)


@pytest.mark.parametrize("method", verify.METHODS)
def test_verify_by_key_follows_law(method):
    # One row, many times over: only the key differs. The thresholds are five standard deviations.
    row = tuple(x[28:29] for x in rows())  # one with many outcomes
    draft, q, pi, _ = (np.repeat(x, 20_000, 0) for x in row)
    verdict = jax.jit(functools.partial(verify.verify, method=method))(
        jax.random.key(11), draft, q, pi
    )
    accepted, after = stated_law(verify, method, row)
    expected = np.asarray(accepted[0, :, None] * after[0])
    found = np.zeros_like(expected)
    np.add.at(found, tuple(verdict), 1 / len(draft))
    assert np.count_nonzero(expected > 0.01) > 3
    bound = 5 * np.sqrt(expected * (1 - expected) / len(draft)) + 1e-6
    assert np.all(np.abs(found - expected) <= bound)


# ---- tokens without target mass ----


@pytest.mark.parametrize("method", verify.METHODS)
def test_tokens_without_mass_are_never_emitted(method):
    check_support(verify, method)


# ---- edges ----


@pytest.mark.parametrize("method", verify.METHODS)
def test_without_drafts_the_token_is_from_pi(method):
    pi = np.array([[[0.25, 0.5, 0.25]], [[0.0, 1.0, 0.0]]], np.float32)
    draft, q = np.zeros((2, 0), np.int32), np.zeros((2, 0, 3), np.float32)
    uniforms = verify.Uniforms(np.zeros((2, 0), np.float32), np.full(2, 0.8, np.float32))
    (accepted, after), verdict = decide_jitted(method, draft, q, pi, uniforms)
    np.testing.assert_array_equal(accepted, np.ones((2, 1)))
    np.testing.assert_array_equal(after, pi)
    np.testing.assert_array_equal(verdict.num_accepted, [0, 0])
    np.testing.assert_array_equal(verdict.next_token, [2, 1])


def test_length_defaults_to_the_whole_block():
    blocks = tuple(x[:10] for x in rows())
    assert np.all(blocks[3] == blocks[0].shape[1])
    for method in verify.METHODS:
        stated = stated_law(verify, method, blocks)
        for x, y in zip(stated, stated_law(verify, method, blocks[:3]), strict=True):
            np.testing.assert_array_equal(x, y)


def test_unknown_method():
    draft, q, pi, _ = rows()
    with pytest.raises(UserError, match="'best' is unknown; choose one of: token, block"):
        verify.law(draft, q, pi, method="best")


# ---- sharded vocabulary ----


def on_shards(vocab, method, blocks, uniforms):
    """Returns the verdict on blocks whose vocabulary lies on four devices."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("vocab",))
    shards = P(None, None, "vocab")

    def run(draft, q, pi, length, uniforms):
        options = {"length": length, "method": method, "uniforms": uniforms, "vocab": vocab}
        return verify.verify(None, draft, q, pi, **options)

    specs = (P(), shards, shards, P(), P())
    mapped = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=P())
    return jax.jit(mapped)(*blocks, uniforms)


def check_shards(vocab, method):
    """Raises AssertionError unless shards decide as the whole does."""
    blocks = rows(count=400)
    batch, size = blocks[0].shape
    rng = np.random.default_rng(0)
    accept, token = rng.uniform(size=(batch, size)), rng.uniform(size=batch)
    uniforms = verify.Uniforms(accept.astype(np.float32), token.astype(np.float32))
    draft, q, pi, length = blocks
    decide = jax.jit(verify.verify, static_argnames="method")
    whole = decide(None, draft, q, pi, length=length, method=method, uniforms=uniforms)
    for found, expected in zip(on_shards(vocab, method, blocks, uniforms), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("method", verify.METHODS)
def test_shards_verify_as_the_whole(method):
    check_shards(Vocab("vocab"), method)


class _Largest(Vocab):
    """Takes the largest shard's sum for the sum."""

    def sum(self, x):
        return jax.lax.pmax(x.sum(-1, keepdims=True), self.axis_name)


class _First(Vocab):
    """Takes the ids of a shard for those of the vocabulary."""

    def _first(self, size):
        return 0


class _Unequal(Vocab):
    """Draws by totals that are one shard off."""

    def totals(self, x):
        return jnp.roll(super().totals(x), 1, axis=-1)


@pytest.mark.parametrize(
    ("method", "mutant"), [("block", _Largest), ("token", _First), ("token", _Unequal)]
)
def test_wrong_reductions_are_caught(method, mutant):
    with pytest.raises(AssertionError):
        check_shards(mutant("vocab"), method)


@pytest.mark.parametrize("method", verify.METHODS)
@pytest.mark.parametrize("given_as", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("jitted", [False, True])
def test_subnormal_probabilities_count_as_zero(method, given_as, jitted):
    least = np.finfo(np.float32).tiny
    rng = np.random.default_rng(0)
    values = np.array([0, 1e-45, 1e-40, least, 0.25, 1, 1], np.float32)
    x = rng.choice(values, (60, 7, 5))
    x[..., 0] += 1
    x /= x.sum(-1, keepdims=True)
    q, pi = x[:, :3], x[:, 3:]
    draft = rng.integers(5, size=(60, 3)).astype(np.int32)
    cleared = [np.where(y < least, np.float32(0), y) for y in (q, pi)]

    uniforms = verify.Uniforms(np.full((60, 3), 0.4, np.float32), np.full(60, 0.7, np.float32))
    run = decide_jitted if jitted else decide_both
    (accepted, after), verdict = run(method, draft, given_as(q), given_as(pi), uniforms)
    (expected, expected_after), expected_verdict = decide_jitted(
        method, draft, *map(jnp.asarray, cleared), uniforms
    )
    np.testing.assert_allclose(np.asarray(accepted).sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(np.asarray(after).sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(accepted, expected, atol=1e-6)
    np.testing.assert_allclose(after, expected_after, atol=1e-6)
    np.testing.assert_array_equal(verdict.num_accepted, expected_verdict.num_accepted)
    np.testing.assert_array_equal(verdict.next_token, expected_verdict.next_token)
