"""Cascades without speculation, as real execution: they cost what they cost.

Token cascade: the drafter makes each token; where the rule defers, the expert makes it instead.
Sequence cascade: the drafter writes the whole answer; where its confidence is low, the expert
writes it again from the prompt.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import rules as rules_lib
from speccascade.decode import state as state_lib
from speccascade.decode.loop import autoregressive, check_pair, check_rows
from speccascade.decode.rows import Rows
from speccascade.decode.state import Emission, Output, State
from speccascade.errors import UserError
from speccascade.models.interface import Model
from speccascade.randomness import Role, row_keys, uniforms
from speccascade.rules import Rule
from speccascade.sampling import confidence, distribution, draw

CATCH_UP = 8  # tokens that the expert reads in one pass to see what the drafter wrote
REWRITE = 1 << 30  # flips this bit of the seeds with which the expert writes an answer again


class _Cascade(NamedTuple):
    """A token cascade's state.

    Attributes:
      state: the common state; its `expert` is the expert's cache.
      first: int32 [B], the prompt's last token, which neither cache holds at the start.
      read: int32 [B], tokens from `first` on that the expert has read.
    """

    state: State
    first: jax.Array
    read: jax.Array


def token_cascade(
    drafter: Model,
    expert: Model,
    params: dict[str, Any],
    rule: Rule,
    rows: Rows,
    max_new_tokens: int,
) -> Output:
    """Decodes a batch token by token, running the expert only where the rule defers.

    Its law is that of the speculative cascade with the same rule. When the expert is asked it first
    reads what the drafter has written since, `CATCH_UP` tokens a pass; each pass is an expert call.

    Args:
      drafter: the drafter's model.
      expert: the expert's model.
      params: `{"drafter": ..., "expert": ...}`.
      rule: one that decides from q1 alone.
      rows: the batch; `rule_index` is ignored.
      max_new_tokens: the most tokens that a row may ask for.

    Raises:
      UserError: the rule needs the expert to decide, the vocabularies differ, or a row asks for
        more tokens than `max_new_tokens`.
    """
    rules_lib.check_sequential(rule)
    check_pair(drafter, expert)
    check_rows(rows, max_new_tokens)
    cascade = _prefill(drafter, expert, max_new_tokens, params, rows)
    return state_lib.output(_run(drafter, expert, params, rule, rows, cascade).state)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _prefill(drafter, expert, max_new_tokens, params, rows) -> _Cascade:
    batch, prompt_slots = rows.prompt.shape
    slots = prompt_slots + max_new_tokens + CATCH_UP + 1

    def read(model, model_params):
        cache = model.init_cache(batch, slots)
        return model.prefill(model_params, rows.prompt, rows.prompt_length, cache)

    by_drafter, by_expert = read(drafter, params["drafter"]), read(expert, params["expert"])
    state = state_lib.initial(
        rows,
        max_new_tokens + CATCH_UP,
        by_expert.last,
        by_expert.position,
        by_drafter.cache,
        by_expert.cache,
    )
    return _Cascade(state, by_expert.last, jnp.zeros((batch,), jnp.int32))


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=5)
def _run(drafter, expert, params, rule, rows, cascade: _Cascade) -> _Cascade:
    def unfinished(cascade):
        return ~cascade.state.done.all()

    body = partial(_token, drafter, expert, params, rule, rows)
    return jax.lax.while_loop(unfinished, body, cascade)


def _token(drafter, expert, params, rule, rows, cascade: _Cascade) -> _Cascade:
    """Decodes one token of every row that is not done."""
    state = cascade.state
    keys = row_keys(rows.seed, rows.example_id)
    logits, drafter_cache = drafter.apply(
        params["drafter"], state.last[:, None], state.position[:, None], state.drafter
    )
    logits = logits[:, 0]
    q1 = confidence(logits)
    defers = rules_lib.defers_before_expert(rule, q1) & ~state.done
    valid = jnp.isfinite(jnp.max(logits, axis=-1))

    expert_logits, expert_cache, read, calls = _ask_expert(
        expert, params["expert"], cascade, defers
    )
    valid &= ~defers | jnp.isfinite(jnp.max(expert_logits, axis=-1))
    q = distribution(logits, rows.temperature, rows.drafter_truncation)
    p = distribution(expert_logits, rows.temperature, rows.expert_truncation)
    pi = jnp.where(defers[:, None], p, q)
    token = draw(pi, uniforms(keys, state.count, Role.TOKEN, 1)[:, 0])[:, None]
    emission = Emission(
        tokens=token,
        count=jnp.ones_like(state.count),
        logprob=jnp.log(jnp.take_along_axis(pi, token, axis=-1)),
        expert_logprob=jnp.zeros(token.shape),
        valid=valid,
    )
    new, emitted = state_lib.commit(state, rows, emission)
    active = (emitted > 0).astype(jnp.float32)
    old = state.stats
    stats = old._replace(
        emitted=old.emitted + active,
        expert_calls=old.expert_calls + active * calls,
        drafter_calls=old.drafter_calls + active,
        rejected=jnp.full_like(old.rejected, jnp.nan),
        tv_sum=jnp.full_like(old.tv_sum, jnp.nan),
        deferral_sum=old.deferral_sum + active * defers,
    )
    new = new._replace(drafter=drafter_cache, expert=expert_cache, stats=stats)
    return _Cascade(new, cascade.first, read)


def _ask_expert(expert, params, cascade: _Cascade, defers):
    """Lets the expert catch up with the rows that defer.

    Returns:
      float32 [B, V] logits after the newest token (zeros where not asked), the cache, the tokens
      read, and the passes each row waited for, int32 [B].
    """
    state = cascade.state
    history = jnp.concatenate([cascade.first[:, None], state.tokens], axis=1)
    base = state.position - state.count  # the position of `first`

    def behind(carry):
        _, _, read, _ = carry
        return defers & (read <= state.count)

    def catch_up(carry):
        logits, cache, read, calls = carry
        waiting = behind(carry)
        start = jnp.minimum(read, state.count)
        index = start[:, None] + jnp.arange(CATCH_UP)
        tokens = jnp.take_along_axis(history, jnp.minimum(index, history.shape[1] - 1), axis=1)
        scored, cache = expert.apply(params, tokens, base[:, None] + index, cache)
        # The newest token, where this pass reaches it; what stands behind it is overwritten later.
        newest = jnp.clip(state.count - start, 0, CATCH_UP - 1)
        reached = start + CATCH_UP > state.count
        found = jnp.take_along_axis(scored, newest[:, None, None], axis=1)[:, 0]
        logits = jnp.where((waiting & reached)[:, None], found, logits)
        # A row reads when it asks, so that its calls do not depend on its neighbours.
        read = jnp.where(waiting, jnp.minimum(start + CATCH_UP, state.count + 1), read)
        return logits, cache, read, calls + waiting

    batch = state.last.shape[0]
    carry = (
        jnp.zeros((batch, expert.vocab_size), jnp.float32),
        state.expert,
        cascade.read,
        jnp.zeros((batch,), jnp.int32),
    )
    return jax.lax.while_loop(lambda carry: behind(carry).any(), catch_up, carry)


def sequence_cascade(
    drafter: Model,
    expert: Model,
    params: dict[str, Any],
    threshold: float | np.ndarray,
    rows: Rows,
    max_new_tokens: int,
) -> Output:
    """Decodes a batch with the drafter, and again with the expert where the drafter was unsure.

    Args:
      drafter: the drafter's model.
      expert: the expert's model.
      params: `{"drafter": ..., "expert": ...}`.
      threshold: the least mean token log-probability (under q1, nats) that is kept; scalar or [B].
      rows: the batch; `rule_index` is ignored.
      max_new_tokens: the most tokens that a row may ask for.

    Raises:
      UserError: the threshold is not finite, the vocabularies differ, or a row asks for more
        tokens than `max_new_tokens`.
    """
    check_pair(drafter, expert)
    if not np.all(np.isfinite(threshold)):
        raise UserError(
            f"threshold={threshold} must be finite; it is a mean log-probability in nats"
        )
    draft_rows = rows._replace(expert_truncation=rows.drafter_truncation)
    draft = autoregressive(drafter, params["drafter"], draft_rows, max_new_tokens, logprobs=True)
    own = np.arange(draft.tokens.shape[1]) < np.asarray(draft.num_tokens)[:, None]
    total = np.where(own, np.asarray(draft.expert_logprob), 0.0).sum(1)
    mean = total / np.maximum(np.asarray(draft.num_tokens), 1)
    defers = (mean < threshold) & ~np.asarray(draft.invalid)
    asked = np.where(defers, np.asarray(rows.max_new_tokens), 0).astype(np.int32)
    if not asked.any():
        again = jax.tree.map(jnp.zeros_like, draft)
    else:
        # With noise of its own: what made the drafter unsure must not steer the expert.
        seeds = np.asarray(rows.seed) ^ REWRITE
        again = autoregressive(
            expert,
            params["expert"],
            rows._replace(max_new_tokens=asked, seed=seeds),
            max_new_tokens,
            logprobs=True,
        )

    def merge(a, b):
        return jnp.where(defers.reshape(-1, *(1,) * (a.ndim - 1)), b, a)

    merged = jax.tree.map(merge, draft, again)
    none = jnp.full_like(draft.stats.emitted, jnp.nan)
    stats = merged.stats._replace(
        drafter_calls=draft.stats.expert_calls,
        expert_calls=again.stats.expert_calls,
        rejected=none,
        tv_sum=none,
        deferral_sum=jnp.where(defers, merged.stats.emitted, 0.0),
    )
    return merged._replace(stats=stats)
