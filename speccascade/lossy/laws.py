"""Exact laws of whole sequences on pairs of table models, by enumeration.

A table model's context is its last two tokens, read as a number in base V: row c of a table is the
next-token distribution in context c. A law is an array `[V**L]` over the sequences of L tokens in
the order of their numbers in base V; what follows an end of sequence is filled up with it.
"""

import collections
import itertools
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import kernels
from speccascade import rules as rules_lib
from speccascade.rules import Rule


class Tables(NamedTuple):
    """A pair of table models `[C, V]`: as sampled from, and at temperature 1."""

    q: np.ndarray
    p: np.ndarray
    q1: np.ndarray
    p1: np.ndarray


def expert_law(table: np.ndarray, limit: int, eos: int | None = None) -> np.ndarray:
    """Returns the law `[..., V**L]` of the first `limit` tokens drawn from tables `[..., C, V]`."""
    contexts, vocab = table.shape[-2:]
    law = np.ones((*table.shape[:-2], 1))
    context, ended, tokens = np.zeros(1, int), np.zeros(1, bool), np.arange(vocab)
    for _ in range(limit):
        following = np.where(ended[:, None], tokens == eos, table[..., context, :])
        law = (law[..., None] * following).reshape(*law.shape[:-1], -1)
        ended = (ended[:, None] | (tokens == eos)).ravel()
        context = (context[:, None] * vocab + tokens).ravel() % contexts
    return law


def kernel_law(
    rule: Rule, tables: Tables, size: int, limit: int, eos: int | None = None
) -> tuple[np.ndarray, float]:
    """Returns the law of the first `limit` tokens that a kernel emits, after the prompt 0.

    Args:
      rule: a kernel with scalar knobs.
      tables: the pair.
      size: N, tokens per block.
      limit: L.
      eos: the token that ends a sequence; None for none.

    Returns:
      The law `[V**L]`, and the mean number of tokens that the first block emits.
    """
    contexts, vocab = tables.q.shape
    blocks = _Blocks(rule, tables, size)
    started: list[dict] = [collections.Counter() for _ in range(limit + 1)]
    started[0][(), blocks.beginning()] = 1.0
    first = 0.0
    for length in range(limit):
        going = {}
        for (tokens, number), mass in started[length].items():
            if tokens and tokens[-1] == eos:
                started[length + 1][(*tokens, eos), number] += mass
            else:
                context = int(np.dot((0, 0, *tokens)[-2:], (vocab, 1))) % contexts
                going[tokens, number] = context, mass
        blocks.find({(context, number) for (_, number), (context, _) in going.items()})
        for (tokens, number), (context, mass) in going.items():
            for (emitted, after), chance in blocks.found[context, number].items():
                if length == 0:
                    first += chance * len(emitted)
                if eos in emitted:
                    emitted = emitted[: emitted.index(eos) + 1]
                own = (*tokens, *emitted)[:limit]
                started[len(own)][own, after] += mass * chance
    law = np.zeros(vocab**limit)
    powers = vocab ** np.arange(limit)[::-1]
    for (tokens, _), mass in started[limit].items():
        law[int(np.dot(tokens, powers))] += mass
    return law, first


class _Blocks:
    """The laws of a kernel's blocks, by the context and the number that they begin with.

    Attributes:
      found: of each, the probability of the tokens that a block may emit, with the number after.
    """

    def __init__(self, rule: Rule, tables: Tables, size: int):
        self.kernel = cast(kernels.Kernel, rules_lib.definition(rule.name))
        self.knobs = rules_lib.knobs_of(rule, 2)
        self.tables = tables
        vocab = tables.q.shape[1]
        self.drafts = np.array(list(itertools.product(range(vocab), repeat=size)), np.int32)
        self.found: dict[tuple[int, float], collections.Counter] = {}

    def beginning(self) -> float:
        """Returns the number that the prompt 0 begins with."""
        prompt, length = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
        return float(kernels.begin(self.kernel, self.knobs, prompt, length)[0])

    def find(self, pairs: set[tuple[int, float]]) -> None:
        """Finds the laws of contexts and numbers, as many at a time as there are contexts."""
        missing = sorted(pairs - self.found.keys())
        at_once = len(self.tables.q)
        for start in range(0, len(missing), at_once):
            own = missing[start : start + at_once]
            own_laws = self._law([*own, *[own[0]] * (at_once - len(own))])  # of one shape
            for pair, joint, numbers in zip(own, *own_laws, strict=False):
                emitted = self.found[pair] = collections.Counter()
                for d, i, token in zip(*np.nonzero(joint), strict=True):
                    tokens = (*self.drafts[d, :i].tolist(), int(token))
                    emitted[tokens, float(numbers[d, i, token])] += joint[d, i, token]

    def _law(self, pairs) -> tuple[np.ndarray, np.ndarray]:
        """Returns the law of draft, number kept and next token, and the numbers after them.

        Both are `[len(pairs), D, N + 1, V]`.
        """
        tables, drafts = self.tables, self.drafts
        contexts, vocab = tables.q.shape
        paths = [np.repeat([context for context, _ in pairs], len(drafts))]
        drafted = np.tile(drafts, (len(pairs), 1))
        for i in range(drafts.shape[1]):
            paths.append((paths[-1] * vocab + drafted[:, i]) % contexts)
        path = np.stack(paths, axis=1)
        carry = np.repeat([number for _, number in pairs], len(drafts))
        with jax.enable_x64(True):
            q, p, p1 = (np.asarray(t, np.float64)[path] for t in (tables.q, tables.p, tables.p1))
            length = np.full(len(drafted), drafts.shape[1], np.int32)
            block = kernels.Block(*map(jnp.asarray, (drafted, length, q[:, :-1], p, p1)))
            law = kernels.law(self.kernel, self.knobs, block, jnp.asarray(carry, jnp.float64))
            accepted, after, numbers = map(np.asarray, law)
        at_draft = np.take_along_axis(q[:, :-1], drafted[..., None], -1)[..., 0]
        mass = (at_draft.prod(axis=1)[:, None] * accepted)[..., None]
        joint = np.where(mass > 0, mass * after, 0.0)
        shape = (len(pairs), len(drafts), *after.shape[1:])
        return joint.reshape(shape), numbers.reshape(shape)


def distance(law: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the total variation distance of laws `[..., K]`, `[...]`."""
    return np.abs(law - other).sum(-1) / 2
