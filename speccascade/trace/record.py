"""From the engine's records to plain data: who wrote each token, and why.

A block drafts `x_0 .. x_{L-1}` and verifies them against the rule's target pi; the first `A` of
them are kept and one more token `y` follows (`Verdict.num_accepted` and `next_token`). Of these
A + 1 tokens the row takes the first `E` (`Record.emitted`): fewer where the answer ends inside the
block.

*Strict verification* is that of lossless speculative decoding, whose target is the expert's p. It
is asked about the same draft with the same random draws, those of (seed, example id, block start),
and would have kept the first `S` tokens. So "strict verification would have cut here" is no
estimate: it is what the rule `spec` does with this draft.

Every token has one `Kind`:

  kept       drafted at offset i < A, i < E, and i < S: strict verification keeps it too. Under
             `spec` every draft token that stays is of this kind.
  deferred   likewise, but the rule deferred the token to the expert (r = 1), whose own law is the
             target there: the draft passed the expert's test. Only rules with a deferral decision r
             have this kind.
  rule       drafted at offset i < A, i < E, and i >= S: the rule keeps it, and strict verification
             had cut the block at offset S, here or before.
  replaced   y where A < L: the draft token at offset A was rejected, and y was drawn from what pi
             has beyond q, `norm(max(0, pi - q))` (block verifier: `norm(max(0, w pi - q))`).
  bonus      y where A = L: the whole draft was kept and y was drawn from pi at the next position.
             L is less than N, even 0, where the rule ended the drafting.
  discarded  drafted and thrown away, for one of three `Reason`s: `rejected` (offset A, y stands in
             its place), `after` (behind a rejected token) or `end` (behind the end of the answer).
"""

import codecs
import dataclasses
import enum
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from speccascade.decode.step import Record
from speccascade.verify import Uniforms, law, verify
from speccascade.vocab import positive


class Kind(enum.StrEnum):
    """Who wrote a token; the module's docstring defines each."""

    KEPT = "kept"
    DEFERRED = "deferred"
    RULE = "rule"
    REPLACED = "replaced"
    BONUS = "bonus"
    DISCARDED = "discarded"


class Reason(enum.StrEnum):
    """Why a draft token was thrown away."""

    REJECTED = "rejected"
    AFTER = "after"
    END = "end"


@dataclasses.dataclass(frozen=True)
class Piece:
    """A token as text.

    Attributes:
      id: the token's id.
      text: the characters that it completes. A character cut into several tokens belongs to the
        last of them; the others have none.
      data: the bytes that it stands for; none for a special token.
      ends: whether it is an end-of-sequence.
    """

    id: int
    text: str
    data: bytes
    ends: bool


@dataclasses.dataclass(frozen=True)
class Token(Piece):
    """A token with what its position says about it.

    Attributes:
      offset: its place in the block, from 0 on.
      kind: who wrote it.
      q: the drafter's probability of it, as sampled from; None where the drafter took no step.
      p: the expert's, as sampled from.
      pi: the target's.
      deferral: the mass that the rule defers at this position; None where the rule has no such
        thing.
      accept: the chance that the verifier keeps this draft token once it has kept those before:
        `min(1, pi / q)` for the token verifier; None for a token that was not drafted.
      strict_accept: the same with the expert's p as the target.
      draw: the uniform that decided, for the token verifier: a draft token is kept where
        `draw * q < pi`. The block verifier decides on no single token, and this is None.
      deferred: whether the rule deferred this draft token to the expert; None where the rule has no
        such decision or the token was not drafted.
      strict_keeps: whether strict verification of the same block would have kept this draft token;
        None for a token that was not drafted.
      reason: why a token was discarded; None for the others.
    """

    offset: int
    kind: Kind
    q: float | None
    p: float
    pi: float
    deferral: float | None
    accept: float | None = None
    strict_accept: float | None = None
    draw: float | None = None
    deferred: bool | None = None
    strict_keeps: bool | None = None
    reason: Reason | None = None

    @property
    def drafted(self) -> bool:
        """Whether the drafter wrote it."""
        return self.strict_keeps is not None


@dataclasses.dataclass(frozen=True)
class Block:
    """One call of the expert.

    Attributes:
      start: tokens that the row had when the block began.
      drafted: L, tokens drafted.
      tokens: what the row took from the block.
      discarded: drafted and thrown away.
      strict_kept: S, draft tokens that strict verification would have kept.
      strict_next: the token that it would have written after them.
    """

    start: int
    drafted: int
    tokens: tuple[Token, ...]
    discarded: tuple[Token, ...]
    strict_kept: int
    strict_next: Piece

    @property
    def strict_cut(self) -> int | None:
        """The offset at which strict verification cuts a draft that this rule keeps, or None."""
        kept = any(token.kind is Kind.RULE for token in self.tokens)
        return self.strict_kept if kept else None


class Numbers(NamedTuple):
    """What a record says about its tokens, without the vocabulary axis.

    Attributes:
      tokens: int32 [B, N], drafted.
      length: int32 [B], how many of them really were.
      kept: int32 [B], A.
      emitted: int32 [B], E.
      drafted: float32 [B, N, 3], q, p and pi of the draft tokens.
      accept: float32 [B, N], see `Token`.
      strict_accept: float32 [B, N].
      draws: float32 [B, N], the uniforms of the acceptance.
      deferral: float32 [B, N + 1], NaN where the rule has none.
      deferred: bool [B, N], whether the rule deferred the draft token.
      next_token: int32 [B], y.
      next: float32 [B, 3], q, p and pi of y; q is NaN where the drafter took no step.
      strict_kept: int32 [B], S.
      strict_next: int32 [B], what strict verification would have written after them.
    """

    tokens: jax.Array
    length: jax.Array
    kept: jax.Array
    emitted: jax.Array
    drafted: jax.Array
    accept: jax.Array
    strict_accept: jax.Array
    draws: jax.Array
    deferral: jax.Array
    deferred: jax.Array
    next_token: jax.Array
    next: jax.Array
    strict_kept: jax.Array
    strict_next: jax.Array


@partial(jax.jit, static_argnames="method")
def numbers(record: Record, uniforms: Uniforms, method: str) -> Numbers:
    """Reads a record, and asks strict verification about the same block.

    Args:
      record: of one block, for a batch; at least one token of room per row (N > 0).
      uniforms: those that the verifier had.
      method: the verifier, "token" or "block".
    """
    draft, (kept, next_token) = record.draft, record.verdict
    size = draft.tokens.shape[1]
    every_q = draft.q.spread(record.p).q
    q = every_q[:, :size]
    drafted = [_at(x[:, :size], draft.tokens) for x in (q, record.p, record.pi)]
    q_at, p_at, pi_at = drafted
    # Where no bonus position was asked for, or no draft was found, the drafter has no q.
    known = draft.q.known(size + 1)[..., None]
    following = [
        _at(jnp.take_along_axis(x, kept[:, None, None], axis=1), next_token[:, None])[:, 0]
        for x in (jnp.where(known, every_q, jnp.nan), record.p, record.pi)
    ]
    options: dict[str, Any] = {"length": draft.length, "method": method}
    strict = verify(None, draft.tokens, q, record.p, uniforms=uniforms, **options)
    # Of pi = q (1 - r) + p * deferral, at a draft token, the first part is q or nothing.
    own = pi_at - p_at * record.deferral[:, :size]
    return Numbers(
        tokens=draft.tokens,
        length=draft.length,
        kept=kept,
        emitted=record.emitted,
        drafted=jnp.stack(drafted, axis=-1),
        accept=_accept(draft.tokens, q, record.pi, **options),
        strict_accept=_accept(draft.tokens, q, record.p, **options),
        draws=uniforms.accept,
        deferral=record.deferral,
        deferred=own < 0.5 * q_at,
        next_token=next_token,
        next=jnp.stack(following, axis=-1),
        strict_kept=strict.num_accepted,
        strict_next=strict.next_token,
    )


def _at(probs: jax.Array, tokens: jax.Array) -> jax.Array:
    """Returns `probs [B, M, V]` at `tokens [B, M]`."""
    return jnp.take_along_axis(probs, tokens[..., None], axis=-1)[..., 0]


def _accept(tokens, q, pi, *, length, method):
    """Returns the chance that each draft token is kept once those before are, [B, N]."""
    if method == "token":
        q_at, pi_at = _at(q, tokens), _at(pi[:, : tokens.shape[1]], tokens)
        # Behind a row's drafted tokens q may be zero; nobody looks there.
        return jnp.minimum(1.0, pi_at / jnp.where(positive(q_at), q_at, 1.0))
    exactly, _ = law(tokens, q, pi, length=length, method=method)
    reach = jnp.cumsum(exactly[:, ::-1], axis=1)[:, ::-1]  # the chance to keep at least i
    before = jnp.where(positive(reach[:, :-1]), reach[:, :-1], 1.0)
    return jnp.clip(reach[:, 1:] / before, 0.0, 1.0)


class _Text:
    """A text as it grows, so that a character cut into several tokens comes out whole."""

    def __init__(self, token_bytes, opening_bytes):
        self._token_bytes, self._opening_bytes = token_bytes, opening_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token: int, final: bool = False) -> tuple[str, bytes]:
        """Returns the characters that a token completes, and its bytes."""
        data = self._token_bytes(token)
        if data and self._opening_bytes is not None:
            data, self._opening_bytes = self._opening_bytes(token), None
        return self._decoder.decode(data, final), data

    def copy(self) -> "_Text":
        """Returns the text so far, to go on with by itself."""
        other = _Text(self._token_bytes, self._opening_bytes)
        other._decoder.setstate(self._decoder.getstate())
        return other


class Writer:
    """Turns one row's records into blocks, keeping the text so far."""

    def __init__(
        self,
        token_bytes: Callable[[int], bytes],
        eos_ids: Collection[int],
        opening_bytes: Callable[[int], bytes] | None = None,
    ):
        """Begins a row.

        Args:
          token_bytes: the bytes that an id adds to a text.
          eos_ids: ids that end one.
          opening_bytes: those of the first id that adds any, where the answer begins a text.
        """
        self._eos_ids = eos_ids
        self._text = _Text(token_bytes, opening_bytes)
        self._count = 0

    def block(self, of: Numbers, row: int, method: str, last: bool) -> Block:
        """Returns the next block.

        Args:
          of: the block's numbers.
          row: which row of them.
          method: the verifier.
          last: whether the row ends with this block.
        """
        own = Numbers(*(np.asarray(x)[row] for x in of))
        length, kept, emitted = int(own.length), int(own.kept), int(own.emitted)
        tokens, discarded = [], []
        strict = self._text.copy()
        for i in range(min(kept, emitted)):
            deferred = self._deferred(own, i)
            kind = Kind.DEFERRED if deferred else Kind.KEPT
            if i >= own.strict_kept:
                kind = Kind.RULE
            # The last token of an answer shows what is left of a character.
            piece = self._piece(self._text, own.tokens[i], last and i == emitted - 1)
            tokens.append(self._drafted(own, i, kind, piece, method))
        elsewhere = self._text.copy()
        if emitted > kept:
            kind = Kind.BONUS if kept == length else Kind.REPLACED
            piece = self._piece(self._text, own.next_token, last)
            tokens.append(self._following(own, kind, piece))
        for i in range(min(kept, emitted), length):
            piece = self._piece(elsewhere, own.tokens[i])
            reason = Reason.END
            if emitted > kept:
                reason = Reason.REJECTED if i == kept else Reason.AFTER
            discarded.append(self._drafted(own, i, Kind.DISCARDED, piece, method, reason))
        for i in range(int(own.strict_kept)):
            strict.add(int(own.tokens[i]))
        strict_next = self._piece(strict, own.strict_next)
        start, self._count = self._count, self._count + emitted
        return Block(
            start, length, tuple(tokens), tuple(discarded), int(own.strict_kept), strict_next
        )

    def _piece(self, text: "_Text", token, final: bool = False) -> Piece:
        index = int(token)
        return Piece(index, *text.add(index, final), index in self._eos_ids)

    def _deferred(self, own: Numbers, i: int) -> bool | None:
        return None if np.isnan(own.deferral[i]) else bool(own.deferred[i])

    def _drafted(self, own, i, kind, piece, method, reason=None) -> Token:
        q, p, pi = map(float, own.drafted[i])
        return Token(
            **vars(piece),
            offset=i,
            kind=kind,
            q=q,
            p=p,
            pi=pi,
            deferral=_known(own.deferral[i]),
            accept=float(own.accept[i]),
            strict_accept=float(own.strict_accept[i]),
            draw=float(own.draws[i]) if method == "token" else None,
            deferred=self._deferred(own, i),
            strict_keeps=bool(i < own.strict_kept),
            reason=reason,
        )

    def _following(self, own, kind, piece) -> Token:
        q, p, pi = own.next
        offset = int(own.kept)
        return Token(
            **vars(piece),
            offset=offset,
            kind=kind,
            q=_known(q),
            p=float(p),
            pi=float(pi),
            deferral=_known(own.deferral[offset]),
        )


def _known(value) -> float | None:
    return None if np.isnan(value) else float(value)
