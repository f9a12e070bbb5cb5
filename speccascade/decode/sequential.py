"""Cascades without speculation, as real execution: they cost what they cost.

Token cascade: the drafter makes each token; where the rule defers, the expert makes it instead.
Sequence cascade: the drafter writes the whole answer; where its confidence is low, the expert
writes it again from the prompt.
"""

from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import rules as rules_lib
from speccascade.decode import placing
from speccascade.decode import state as state_lib
from speccascade.decode.drafters.interface import AT_ROWS, ROWS, check_vocabulary
from speccascade.decode.drafters.model import ModelDrafter
from speccascade.decode.loop import autoregressive, check_rows
from speccascade.decode.rows import Rows
from speccascade.decode.state import Emission, Output, State
from speccascade.decode.step import Decoder
from speccascade.errors import UserError
from speccascade.models.interface import Model
from speccascade.randomness import Role, RowKeys, uniforms
from speccascade.rules import Rule
from speccascade.sampling import confidence, distribution, draw
from speccascade.sharding import Layout, hosts
from speccascade.sharding.active import constrain, over_vocabulary, pad_vocabulary, use

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
    layout: Layout | None = None,
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
      layout: how models and rows lie on a mesh; None for one device.

    Raises:
      UserError: the rule needs the expert to decide, the vocabularies differ, or a row asks for
        more tokens than `max_new_tokens`.
    """
    rules_lib.check_sequential(rule)
    check_vocabulary(drafter, expert)
    check_rows(rows, max_new_tokens)
    decoder = Decoder(expert, ModelDrafter(drafter), 1, max_new_tokens, layout=layout)
    rule, rows = placing.place(decoder, rule, rows)
    cascade = _prefill(decoder, params, rows)
    return state_lib.output(_run(decoder, params, rule, rows, cascade).state)


def _models(decoder: Decoder) -> dict[str, Model]:
    drafter = cast(ModelDrafter, decoder.drafter)  # as `Decoder`s here have
    return {"drafter": drafter.model, "expert": decoder.expert}


@partial(jax.jit, static_argnums=0)
def _prefill(decoder: Decoder, params, rows) -> _Cascade:
    batch, prompt_slots = rows.prompt.shape
    overhang = CATCH_UP + 1
    slots = prompt_slots + decoder.max_new_tokens + overhang

    def read(role):
        model = _models(decoder)[role]
        with use(decoder.placement(role)):
            cache = model.init_cache(batch, slots, overhang)
            return model.prefill(params[role], rows.prompt, rows.prompt_length, cache)

    by_drafter, by_expert = read("drafter"), read("expert")
    state = state_lib.initial(
        rows,
        decoder.max_new_tokens + CATCH_UP,
        by_expert.last,
        by_expert.position,
        by_drafter.cache,
        by_expert.cache,
        decoder.drafter.roles,
    )
    state = placing.constrain(decoder, state)
    return _Cascade(state, by_expert.last, jnp.zeros((batch,), jnp.int32))


@partial(jax.jit, static_argnums=0, donate_argnums=4)
def _run(decoder: Decoder, params, rule, rows, cascade: _Cascade) -> _Cascade:
    def unfinished(cascade):
        return ~cascade.state.done.all()

    body = partial(_token, decoder, params, rule, rows)
    return jax.lax.while_loop(unfinished, body, cascade)


def _token(decoder: Decoder, params, rule, rows, cascade: _Cascade) -> _Cascade:
    """Decodes one token of every row that is not done."""
    state = cascade.state
    keys = RowKeys(rows.seed, rows.example_id)
    with use(decoder.placement("drafter")):
        logits, drafter_cache = _models(decoder)["drafter"].apply(
            params["drafter"], state.last[:, None], state.position[:, None], state.drafter
        )
        logits = pad_vocabulary(logits[:, 0])
        judge = over_vocabulary(_judge, (ROWS, AT_ROWS), ROWS)
        defers, valid = judge(rule, logits)
    defers &= ~state.done

    with use(decoder.placement("expert")):
        expert_logits, expert_cache, read, calls = _ask_expert(
            decoder.expert, params["expert"], cascade, defers
        )
        limits = (rows.temperature, rows.drafter_truncation, rows.expert_truncation)
        uniform = uniforms(keys, state.count, Role.TOKEN, 1)[:, 0]
        choose = over_vocabulary(_choose, (ROWS, ROWS, AT_ROWS, AT_ROWS, ROWS), ROWS)
        expert_logits = pad_vocabulary(expert_logits)
        token, logprob, finite = choose(defers, limits, logits, expert_logits, uniform)
    emission = Emission(
        tokens=token[:, None],
        count=jnp.ones_like(state.count),
        logprob=logprob[:, None],
        expert_logprob=jnp.zeros(token[:, None].shape),
        valid=valid & (~defers | finite),
    )
    new, emitted = state_lib.commit(state, rows, emission)
    active = (emitted > 0).astype(jnp.float32)
    old = state.stats
    stats = old._replace(
        emitted=old.emitted + active,
        expert_calls=old.expert_calls + active * calls,
        drafter_calls={"drafter": old.drafter_calls["drafter"] + active},
        rejected=jnp.full_like(old.rejected, jnp.nan),
        tv_sum=jnp.full_like(old.tv_sum, jnp.nan),
        deferral_sum=old.deferral_sum + active * defers,
    )
    new = new._replace(drafter=drafter_cache, expert=expert_cache, stats=stats)
    return _Cascade(placing.constrain(decoder, new), cascade.first, read)


def _judge(vocab, rule, logits):
    """Returns what the rule makes of the drafter's logits [B, V]: whether it defers, if finite."""
    q1 = confidence(logits, vocab)
    defers = rules_lib.defers_before_expert(rule, q1, vocab)
    return defers, jnp.isfinite(vocab.max(logits)[..., 0])


def _choose(vocab, defers, limits, logits, expert_logits, uniform):
    """Returns each row's token, the log-probability, and if the expert's logits are finite."""
    temperature, drafter_truncation, expert_truncation = limits
    q = distribution(logits, temperature, drafter_truncation, vocab)
    p = distribution(expert_logits, temperature, expert_truncation, vocab)
    pi = jnp.where(defers[:, None], p, q)
    token = draw(pi, uniform, vocab)
    finite = jnp.isfinite(vocab.max(expert_logits)[..., 0])
    return token, jnp.log(vocab.at(pi, token)), finite


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
        logits = constrain(logits, "batch", "vocab")
        # A row reads when it asks, so that its calls do not depend on its neighbours.
        read = jnp.where(waiting, jnp.minimum(start + CATCH_UP, state.count + 1), read)
        return logits, cache, read, calls + waiting

    batch = state.last.shape[0]
    carry = (
        constrain(jnp.zeros((batch, expert.vocab_size), jnp.float32), "batch", "vocab"),
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
    layout: Layout | None = None,
) -> Output:
    """Decodes a batch with the drafter, and again with the expert where the drafter was unsure.

    Args:
      drafter: the drafter's model.
      expert: the expert's model.
      params: `{"drafter": ..., "expert": ...}`.
      threshold: the least mean token log-probability (under q1, nats) that is kept; scalar or [B].
      rows: the batch; `rule_index` is ignored.
      max_new_tokens: the most tokens that a row may ask for.
      layout: how models and rows lie on a mesh; None for one device.

    Raises:
      UserError: the threshold is not finite, the vocabularies differ, or a row asks for more
        tokens than `max_new_tokens`.
    """
    check_vocabulary(drafter, expert)
    if not np.all(np.isfinite(threshold)):
        raise UserError(
            f"threshold={threshold} must be finite; it is a mean log-probability in nats"
        )
    draft_rows = rows._replace(expert_truncation=rows.drafter_truncation)
    alone = None if layout is None else layout.alone("drafter")
    draft = autoregressive(
        drafter, params["drafter"], draft_rows, max_new_tokens, logprobs=True, layout=alone
    )
    draft = hosts.gather(draft)
    own = np.arange(draft.tokens.shape[1]) < draft.num_tokens[:, None]
    total = np.where(own, draft.expert_logprob, 0.0).sum(1)
    mean = total / np.maximum(draft.num_tokens, 1)
    defers = (mean < threshold) & ~draft.invalid
    asked = np.where(defers, np.asarray(rows.max_new_tokens), 0).astype(np.int32)
    if not asked.any():
        again = jax.tree.map(np.zeros_like, draft)
    else:
        # With noise of its own: what made the drafter unsure must not steer the expert.
        seeds = np.asarray(rows.seed) ^ np.array([0, REWRITE], np.uint32)
        again = autoregressive(
            expert,
            params["expert"],
            rows._replace(max_new_tokens=asked, seed=seeds),
            max_new_tokens,
            logprobs=True,
            layout=layout,
        )
        again = hosts.gather(again)

    def merge(a, b):
        return np.where(defers.reshape(-1, *(1,) * (a.ndim - 1)), b, a)

    merged = jax.tree.map(merge, draft, again)
    none = np.full_like(draft.stats.emitted, np.nan)
    stats = merged.stats._replace(
        drafter_calls={"drafter": draft.stats.expert_calls},
        expert_calls=again.stats.expert_calls,
        rejected=none,
        tv_sum=none,
        deferral_sum=np.where(defers, merged.stats.emitted, 0.0),
    )
    return merged._replace(stats=stats)
