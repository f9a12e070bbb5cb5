"""Everything of a block that touches the vocabulary: one pure function of the models' logits.

Where the vocabulary is sharded it runs under `jax.shard_map`, each device on its own token ids.
"""

from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from speccascade import kernels
from speccascade import rules as rules_lib
from speccascade.decode.drafters.interface import AT_POSITIONS, ROWS, Draft, by_row
from speccascade.decode.rows import Rows
from speccascade.rules import Distributions, Rule, Target
from speccascade.sampling import Truncation, confidence, distribution
from speccascade.sharding.active import over_vocabulary, pad_vocabulary
from speccascade.verify import METHODS, Uniforms, Verdict, verify
from speccascade.vocab import Vocab


class Decision(NamedTuple):
    """What becomes of a block.

    Attributes:
      verdict: the verifier's decision.
      tokens: int32 [B, N + 1], the drafted block with the verdict's token behind the kept ones.
      logprob: float32 [B, N + 1], log pi of each token; zeros where not asked for.
      expert_logprob: float32 [B, N + 1], log p1 of each token; zeros where not asked for.
      valid: bool [B], false where the expert's logits were not finite.
      distance: float32 [B, N], TV(pi, q).
      deferral: float32 [B, N + 1], the deferred mass; NaN where the method has no such thing.
      p: float32 [B, N + 1, V], the expert as sampled from.
      pi: float32 [B, N + 1, V], the target distribution; NaN where kernels decide.
      carry: float32 [B] or [B, 2], what kernels remember after the block, else ().
    """

    verdict: Verdict
    tokens: jax.Array
    logprob: jax.Array
    expert_logprob: jax.Array
    valid: jax.Array
    distance: jax.Array
    deferral: jax.Array
    p: jax.Array
    pi: jax.Array
    carry: Any


_DECISION = Decision(*(ROWS,) * 7, AT_POSITIONS, AT_POSITIONS, ROWS)


class _Asked(NamedTuple):
    """What each row asks for; see `Rows`."""

    temperature: jax.Array
    truncation: Truncation | None
    rule_index: jax.Array


def decide(
    method: str | kernels.Twin,
    logprobs: bool,
    rules: tuple[Rule, ...],
    rows: Rows,
    draft: Draft,
    logits: jax.Array,
    uniforms: Uniforms,
    carry: Any = (),
) -> Decision:
    """Decides on a block.

    Args:
      method: the verifier, "token", "block" or one of kernels.
      logprobs: whether the log-probabilities of the tokens are wanted.
      rules: the run's rules; knobs of shape [B] go by row.
      rows: the batch.
      draft: the drafted block.
      logits: float32 [B, N + 1, V], the expert's.
      uniforms: the verifier's randomness.
      carry: float32 [B] or [B, 2], what kernels remember of the rows, else ().
    """
    asked = _Asked(rows.temperature, rows.expert_truncation, rows.rule_index)
    run = over_vocabulary(
        partial(_decide, method, logprobs),
        (ROWS, ROWS, draft.axes(), AT_POSITIONS, ROWS, ROWS),
        _DECISION,
    )
    return run(rules, asked, draft, pad_vocabulary(logits), uniforms, carry)


def _decide(method, logprobs, vocab: Vocab, rules, asked, draft: Draft, logits, uniforms, carry):
    size = draft.tokens.shape[1]
    p = distribution(logits, asked.temperature, asked.truncation, vocab)
    p1 = confidence(logits, vocab)
    q, q1 = draft.q.spread(p, vocab)
    if method not in METHODS:
        target = Target(jnp.full_like(p, jnp.nan), jnp.full(p.shape[:-1], jnp.nan, p.dtype))
        q = q[:, :size]
        block = kernels.Block(draft.tokens, draft.length, q, p, p1)
        decide = method.verify if isinstance(method, kernels.Twin) else kernels.verify
        verdict, carry = _by_kernel(decide, rules, asked.rule_index, block, carry, uniforms, vocab)
    else:
        target = _target(rules, asked.rule_index, draft, Distributions(q, p, q1, p1), vocab)
        q = q[:, :size]
        verdict = verify(
            None,
            draft.tokens,
            q,
            target.pi,
            length=draft.length,
            method=method,
            uniforms=uniforms,
            vocab=vocab,
        )
    kept, following = verdict.num_accepted[:, None], verdict.next_token[:, None]
    tokens = jnp.concatenate([draft.tokens, draft.tokens[:, :1] if size else following], axis=1)
    tokens = jnp.where(jnp.arange(size + 1) == kept, following, tokens)
    distance = jnp.zeros(draft.tokens.shape)
    if size:
        distance = rules_lib.total_variation(target.pi[:, :size], q, vocab)[..., 0]
    zeros = jnp.zeros(tokens.shape, jnp.float32)
    return Decision(
        verdict=verdict,
        tokens=tokens,
        logprob=jnp.log(vocab.at(target.pi, tokens)) if logprobs else zeros,
        expert_logprob=jnp.log(vocab.at(p1, tokens)) if logprobs else zeros,
        valid=jnp.all(jnp.isfinite(vocab.max(logits)[..., 0]), axis=-1),
        distance=distance,
        deferral=target.deferral,
        p=p,
        pi=target.pi,
        carry=carry,
    )


def _by_kernel(
    decide, rules, rule_index, block: kernels.Block, carry, uniforms: Uniforms, vocab: Vocab
):
    """Returns each row's verdict under its own kernel, and its carry after the block."""
    decided = [
        decide(
            cast(kernels.Kernel, rules_lib.definition(rule.name)),
            rules_lib.knobs_of(rule, 2),
            block,
            carry,
            uniforms,
            vocab,
        )
        for rule in rules
    ]
    verdicts, carries = zip(*decided, strict=True)
    verdict = Verdict(*(by_row(list(part), rule_index) for part in zip(*verdicts, strict=True)))
    return verdict, by_row(list(carries), rule_index)


def begun(rules: tuple[Rule, ...], rows: Rows, carry: jax.Array, count: jax.Array) -> jax.Array:
    """Returns what kernels remember before a block, in the shape of `carry`.

    Args:
      rules: the run's kernels.
      rows: the batch.
      carry: float32 [B], the rows' numbers after the last block; [B, 2] where twins decide, that
        and how many tokens were kept in a row.
      count: int32 [B], tokens generated: a row without any is at its beginning.
    """
    numbers = [
        kernels.begin(
            cast(kernels.Kernel, rules_lib.definition(rule.name)),
            rules_lib.knobs_of(rule, 2),
            rows.prompt,
            rows.prompt_length,
        )
        for rule in rules
    ]
    number = by_row(numbers, rows.rule_index)
    if carry.ndim == 1:
        return jnp.where(count == 0, number, carry)
    first = jnp.stack([number, jnp.zeros_like(number)], axis=1)
    return jnp.where(count[:, None] == 0, first, carry)


def _target(rules: tuple[Rule, ...], rule_index, draft: Draft, d: Distributions, vocab) -> Target:
    """Returns each row's target under its own rule, at all N + 1 positions at once."""
    targets = [rules_lib.apply(rule, d, vocab) for rule in rules]
    pi = by_row([t.pi for t in targets], rule_index)
    deferral = by_row([t.deferral for t in targets], rule_index)
    if draft.q.has_gaps:  # the expert writes what is not drafted; no position hangs on its block
        known = draft.q.known(d.p.shape[1])
        pi = jnp.where(known[..., None], pi, d.p)
        deferral = jnp.where(known | jnp.isnan(deferral), deferral, 1.0)
    return Target(pi, deferral)
