"""What a verifier must satisfy: run on the real one, and on ones with mistakes planted in them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import verify
from tests import enumeration

TOP = 1 - 2**-24  # the largest uniform


def worst(names, error) -> str:
    """Says which rule errs most, for settings `[S]` with errors `[S, ...]`."""
    error = error.reshape(len(names), -1).max(1)
    return f"{names[error.argmax()]} is off by {error.max():.2g}"


# ---- the enumerated law of sequences ----


def check_sequences(settings, blocks, limit, tolerance=1e-6):
    """Raises AssertionError unless sequences made of these blocks follow pi."""
    error = np.abs(
        enumeration.sequence_law(blocks, limit) - enumeration.target_law(settings.pi, limit)
    )
    # A NaN is an error as well.
    assert np.all(error <= tolerance), worst(settings.names, np.nan_to_num(error, nan=1.0))


# ---- verify realises law ----


@functools.cache
def rows(count=80, size=3, vocab=4, seed=3):
    """Blocks of every kind: draft [B, N], q [B, N, V], pi [B, N + 1, V], length [B]."""
    rng = np.random.default_rng(seed)

    def random(*shape):
        # Cubes and zeros: from nearly uniform to one-hot.
        weights = rng.uniform(size=shape) ** rng.integers(1, 8, size=(*shape[:-1], 1))
        weights *= rng.uniform(size=shape) < 0.7
        weights[..., 0] += np.where(weights.sum(-1) == 0, 1.0, 0)
        return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)

    q, pi = random(count, size, vocab), random(count, size + 1, vocab)
    same = rng.uniform(size=(count, size, 1)) < 0.3
    pi[:, :-1] = np.where(same, q, pi[:, :-1])
    draft = (rng.gumbel(size=q.shape) + np.log(np.maximum(q, 1e-30))).argmax(-1).astype(np.int32)
    assert np.all(np.take_along_axis(q, draft[..., None], -1) > 0)
    length = rng.integers(0, size + 1, size=count).astype(np.int32)
    length[: count // 2] = size
    # What was not drafted has a q of zero or, in every other row, of anything.
    undrafted = np.arange(size)[:, None] >= length[:, None, None]
    q = np.where(undrafted & (np.arange(count) % 2 == 0)[:, None, None], 0, q)
    return draft, q, pi, length


def runner(module, method, blocks):
    """Returns `verify` on blocks `[B, ...]` as a function of uniforms `[B, K, N]` and `[B, K]`.

    It returns the number accepted and the next token, `[B, K]`, and compiles once for each K.
    """

    @jax.jit
    def run(accept, token):
        draft, q, pi, length = (jnp.repeat(x, accept.shape[1], axis=0) for x in blocks)
        uniforms = verify.Uniforms(accept.reshape(len(draft), -1), token.reshape(-1))
        verdict = module.verify(None, draft, q, pi, length=length, method=method, uniforms=uniforms)
        return tuple(x.reshape(token.shape) for x in verdict)

    def on_arrays(accept, token):
        accept, token = (np.asarray(x, np.float32) for x in (accept, token))
        return tuple(np.asarray(x) for x in run(accept, token))

    return on_arrays


def stated_law(module, method, blocks):
    """Returns `law` of blocks `(draft, q, pi)` or `(draft, q, pi, length)`."""

    @jax.jit
    def law(draft, q, pi, length=None):
        return module.law(draft, q, pi, length=length, method=method)

    return tuple(np.asarray(x) for x in law(*blocks))


def bisect(holds, shape):
    """Counts the uniforms m / 2**24 at which `holds`, true up to some m and false from there on."""
    low, high = np.zeros(shape, int), np.full(shape, 2**24)  # holds below low, not from high on
    while np.any(low < high):
        middle = (low + high) // 2
        ok = holds(middle / 2**24) & (low < high)
        low, high = np.where(ok, middle + 1, low), np.where(ok, high, middle)
    return low


def check_realises(module, method):
    """Raises AssertionError unless `verify`, over all its uniforms, has the law that `law` states.

    Each accept uniform decides one thing by a threshold: `bisect` finds it with the earlier ones at
    0 and the later ones at the top. Every pattern of uniforms below and above their thresholds is
    then run, half-way between, and weighs what it covers; random uniforms confirm that nothing else
    matters.
    """
    blocks = rows()
    batch, size, vocab = blocks[1].shape
    patterns = np.array(list(itertools.product([False, True], repeat=size)))
    lanes = len(patterns) * vocab
    run = runner(module, method, blocks)
    i = np.arange(size)

    def kept(u):  # [B, N]: decision i alone, at u_i
        accept = np.zeros((batch, lanes, size))
        accept[:, :size] = np.where(i[None] < i[:, None], 0.0, TOP)
        accept[:, i, i] = u
        return run(accept, np.zeros((batch, lanes)))[0][:, :size] > i

    count = bisect(kept, (batch, size))[:, None]
    inside = np.where(patterns, count // 2, np.minimum((count + 2**24) // 2, 2**24 - 1)) / 2**24
    weight = np.prod(np.where(patterns, count, 2**24 - count) / 2**24, -1)  # [B, 2**N]
    accept = np.repeat(inside, vocab, axis=1)

    def below(u):  # [B, 2**N V]: whether the token drawn at u is v or one before it
        return run(accept, u)[1] <= np.tile(np.arange(vocab), len(patterns))

    below_v = bisect(below, (batch, lanes)).reshape(batch, -1, vocab) / 2**24
    after = np.diff(below_v, prepend=0.0)
    num = run(accept, np.zeros((batch, lanes)))[0][:, ::vocab]

    probe = np.random.default_rng(0).uniform(size=(batch, lanes, size)).astype(np.float32)
    pattern = np.sum((probe < count / 2**24) * 2 ** i[::-1], -1)
    found = run(probe, np.zeros((batch, lanes)))[0]
    np.testing.assert_array_equal(found, np.take_along_axis(num, pattern, 1))

    accepted, next_token = stated_law(module, method, blocks)
    measured = np.stack([np.where(num == i, weight, 0).sum(1) for i in range(size + 1)], 1)
    np.testing.assert_allclose(measured, accepted, atol=1e-6)
    stated = np.take_along_axis(next_token, num[..., None], 1)
    error = np.where(weight[..., None] > 1e-6, np.abs(after - stated), 0)
    assert np.all(error <= 1e-6), f"the next token is off by {error.max():.2g}"


# ---- tokens without target mass ----


def check_support(module, method):
    """Raises AssertionError if `verify` ever keeps or draws a token without target mass."""
    draft, q, pi, length = blocks = rows()
    batch, size, _ = q.shape
    edges = np.array(list(itertools.product([0.0, 0.3, TOP], repeat=size + 1)))
    uniforms = np.tile(edges, (batch, 1, 1))
    num, token = runner(module, method, blocks)(uniforms[..., :size], uniforms[..., size])
    assert np.all((num >= 0) & (num <= length[:, None])), "more tokens were kept than drafted"
    drawn = np.take_along_axis(pi[np.arange(batch)[:, None], num], token[..., None], -1)
    assert np.all(drawn > 0), "a token without target mass was drawn"
    at_draft = np.take_along_axis(pi[:, :size], draft[..., None], -1)[..., 0]
    kept = np.arange(size) < num[..., None]
    assert np.all((at_draft[:, None] > 0) | ~kept), "a token without target mass was kept"
    assert np.any(at_draft[length > 0] == 0)  # the check had something to find
