"""Exact laws of emitted sequences on toy table models, by enumeration through `verify.law`.

For each setting of `toy_settings` and each context, `block_laws` weighs every draft by its
probability under the drafter and every outcome of the verifier by `law`. `sequence_law` chains
those blocks into the law of whole sequences, and `target_law` is what they must follow: the product
of pi along the sequence.

Axes: S settings, C contexts, D drafts, N draft length, V vocabulary.
"""

import itertools

import jax
import numpy as np

from speccascade import verify
from tests.toy_settings import Settings

EOS = 1

# ---- blocks ----


def real_law(draft, q, pi, p, length, method):
    """The law under test, in the form that `block_laws` calls: p is there for mutants alone."""
    del p
    return verify.law(draft, q, pi, length=length, method=method)


def _paths(vocab: int, contexts: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns every draft, int32 [D, N], and the context of each position, [C, D, N + 1]."""
    drafts = _sequences(vocab, size).astype(np.int32)
    path = [np.repeat(np.arange(contexts)[:, None], len(drafts), 1)]
    for i in range(size):
        path.append((path[-1] * vocab + drafts[:, i]) % contexts)
    return drafts, np.stack(path, -1)


def _drafted_blocks(settings, drafts, path):
    """Returns the drafts' probability, float64 [S, C, D], and rows (draft, q, pi, p, length)."""
    q, pi, p, room, stops = settings
    size, vocab = drafts.shape[-1], q.shape[-1]
    before = path[..., :size]
    length = np.minimum(room[:, :, None], np.sum(np.cumsum(stops[:, before], -1) == 0, -1))
    drafted = np.arange(size) < length[..., None]
    # What lies beyond a row's length is arbitrary: any token, uniformly, and a q of zero or not.
    anything = (np.arange(path.shape[0]) % 2 == 0)[:, None, None]
    q_block = np.where((drafted | anything)[..., None], q[:, before], 0)
    at_draft = _normalised(q)[:, before, drafts]
    chance = np.prod(np.where(drafted, at_draft, 1 / vocab), -1)
    blocks = (
        np.broadcast_to(drafts, (*chance.shape, size)),
        q_block,
        pi[:, path],
        p[:, path],
        length.astype(np.int32),
    )
    return chance, tuple(x.reshape(-1, *x.shape[3:]) for x in blocks)


def _joint(chance, accepted, after):
    """Returns the law of draft, number accepted and next token, [S, C, D, N + 1, V], in float64."""
    # Impossible drafts and outcomes have no law; they weigh nothing.
    chance, joint = chance[..., None], np.zeros(after.shape)
    mass = np.multiply(chance, accepted, where=chance > 0, out=np.zeros(accepted.shape))[..., None]
    return np.multiply(mass, after, where=mass > 0, out=joint)


def _per_outcome(joint, contexts):
    """Sums the joint law over the drafts that were not accepted: N + 1 arrays `[S, C, V**i, V]`."""
    places, vocab = joint.shape[-2:]
    shapes = [(-1, contexts, vocab**i, vocab ** (places - 1 - i), vocab) for i in range(places)]
    return [joint[..., i, :].reshape(shape).sum(3) for i, shape in enumerate(shapes)]


def _run(settings, size, method, law):
    """Returns the joint law in float64 and each row's length; `law` runs in the tables' dtype."""
    contexts, vocab = settings.q.shape[1:]
    chance, blocks = _drafted_blocks(settings[1:], *_paths(vocab, contexts, size))
    with jax.enable_x64(settings.q.dtype == np.float64):
        law = jax.jit(law, static_argnames="method")
        accepted, after = map(np.asarray, law(*blocks, method=method))
    assert accepted.dtype == after.dtype == settings.q.dtype
    places = (*chance.shape, size + 1)
    joint = _joint(chance, accepted.reshape(places), after.reshape(*places, vocab))
    return joint, blocks[-1].reshape(chance.shape)


def block_laws(settings: Settings, size: int, method: str, law=real_law) -> list[np.ndarray]:
    """Returns for i = 0..N the probabilities `[S, C, V**i, V]` of i draft tokens and one more."""
    joint, _ = _run(settings, size, method, law)
    return _per_outcome(joint, settings.q.shape[1])


def accepted_tokens(blocks: list[np.ndarray]) -> np.ndarray:
    """Returns the expected number of accepted tokens per block, `[S, C]`."""
    return sum(i * block.sum((2, 3)) for i, block in enumerate(blocks))


def rejections(settings: Settings, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns, per path and position, how often the token verifier rejects, and how often it must.

    Returns:
      tested: [N, S, C, D], the probability of a path's drafts up to a position and of testing it.
      rejected: the same with a rejection at that position.
      tv: TV(pi, q) there.
    """
    joint, length = _run(settings, size, "token", real_law)
    joint, vocab = joint.sum(-1), joint.shape[-1]
    _, path = _paths(vocab, settings.q.shape[1], size)
    tv = np.maximum(_normalised(settings.pi) - _normalised(settings.q), 0).sum(-1)[:, path]
    tested, rejected, expected = [], [], []
    for j in range(size):
        # A path is told apart by its drafts before position j: the later ones are summed out.
        def over_paths(x, j=j):
            grouped = x.reshape(*x.shape[:2], vocab**j, -1).sum(-1, keepdims=True)
            shape = (*grouped.shape[:3], vocab ** (size - j))
            return np.broadcast_to(grouped, shape).reshape(x.shape)

        is_tested = length > j
        tested.append(over_paths(np.where(is_tested, joint[..., j:].sum(-1), 0)))
        rejected.append(over_paths(np.where(is_tested, joint[..., j], 0)))
        expected.append(tv[..., j])
    return np.stack(tested), np.stack(rejected), np.stack(expected)


def _normalised(table):
    return table / table.sum(-1, keepdims=True, dtype=np.float64)


# ---- sequences ----


def _sequences(vocab: int, length: int) -> np.ndarray:
    """Returns every sequence, int [V**L, L], in the order of its number in base V."""
    sequences = list(itertools.product(range(vocab), repeat=length))
    return np.array(sequences, int).reshape(vocab**length, length)


def _number(sequences: np.ndarray, vocab: int) -> np.ndarray:
    return sequences @ vocab ** np.arange(sequences.shape[1])[::-1]


def _ended(sequences: np.ndarray) -> np.ndarray:
    """Returns bool [V**L, L + 1]: whether an EOS stands before each position and before the end."""
    return np.pad(np.cumsum(sequences == EOS, 1) > 0, ((0, 0), (1, 0)))


def sequence_law(blocks: list[np.ndarray], limit: int) -> np.ndarray:
    """Returns the law of the first `limit` emitted tokens, `[S, V**limit]`, from that of a block.

    A sequence ends at its first EOS, wherever in a block that is, and is filled up with EOS.
    """
    settings, contexts, _, vocab = blocks[0].shape
    started = [np.zeros((settings, vocab**t)) for t in range(limit + 1)]
    started[0][:, 0] = 1
    for t in range(limit):
        prefixes = _sequences(vocab, t)
        ended = _ended(prefixes)[:, -1]
        filled = np.flatnonzero(ended) * vocab + EOS
        started[t + 1][:, filled] += started[t][:, ended]
        context = _number(prefixes, vocab) % contexts
        for i, block in enumerate(blocks):
            mass = started[t][:, ~ended, None] * block[:, context[~ended]].reshape(
                settings, -1, vocab ** (i + 1)
            )
            end = min(t + i + 1, limit)
            mass = mass.reshape(settings, mass.shape[1], vocab ** (end - t), -1).sum(-1)
            tails = _sequences(vocab, end - t)
            both = np.concatenate(
                [np.repeat(prefixes[~ended], len(tails), 0), np.tile(tails, ((~ended).sum(), 1))], 1
            )
            both = np.where(_ended(both)[:, :-1], EOS, both)
            # Sums over what followed an EOS, by a matrix of zeros and ones: the fastest scatter.
            numbers, inverse = np.unique(_number(both, vocab), return_inverse=True)
            scatter = np.zeros((len(both), len(numbers)))
            scatter[np.arange(len(both)), inverse] = 1
            started[end][:, numbers] += mass.reshape(settings, -1) @ scatter
    return started[limit]


def target_law(pi: np.ndarray, limit: int) -> np.ndarray:
    """Returns the law of the first `limit` tokens that `pi [S, C, V]` implies, `[S, V**limit]`."""
    (settings, contexts, vocab), pi = pi.shape, _normalised(pi)
    sequences = _sequences(vocab, limit)
    ended = _ended(sequences)
    probs = np.ones((settings, len(sequences)))
    context = np.zeros(len(sequences), int)
    for t in range(limit):
        token = sequences[:, t]
        probs *= np.where(ended[:, t], token == EOS, pi[:, context, token])
        context = (context * vocab + token) % contexts
    return probs
