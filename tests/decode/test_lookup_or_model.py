"""Lookup joined with a model: the law that rules have over it, and what the model has read."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import rules as rules_lib
from speccascade import verify
from speccascade.decode import Decoder, LookupDrafter, LookupOrModelDrafter, trace
from speccascade.decode import decide as decide_lib
from speccascade.decode.drafters import Request
from speccascade.errors import UserError
from tests import rule_oracle
from tests.decode import lookup_law, path_law, toys
from tests.decode.lookup_law import PROMPTS
from tests.decode.path_law import VOCAB

PARAMS = toys.tables(VOCAB, seed=3)
LOOKUP = LookupDrafter(2, 2)  # finds often and misses often
JOINED = LookupOrModelDrafter(LOOKUP, path_law.TABLE)

# ---- the law ----


def q_behind(text, table):
    """Returns the distribution behind a text, of a table of the model's `[V * V, V]`."""
    token = lookup_law.followed(text, LOOKUP.max_ngram, LOOKUP.min_ngram)
    return table[lookup_law.context_of(text)] if token is None else np.eye(VOCAB)[token]


def targets(setting):
    """Returns pi behind each prompt and beginning of an answer, in that order."""
    q, p, q1, p1 = path_law.tables_of(setting, PARAMS)
    texts = [(*prompt, *own) for prompt in PROMPTS for own in lookup_law.prefixes()]
    q, q1 = (np.array([q_behind(text, table) for text in texts]) for table in (q, q1))
    p, p1 = (table[[lookup_law.context_of(text) for text in texts]] for table in (p, p1))
    return rule_oracle.targets(setting.rule, setting.knobs, q, p, q1, p1)[0]


def blocks(drafter, size, chosen):
    """Drafts and decides on each block that can be, behind every prompt, beginning and setting.

    The prompt was read before; the model has not seen the beginning of the answer.

    Returns:
      The keys (setting, prompt, beginning), the wanted drafts, the draft and the decision.
    """
    own = list(itertools.product(range(len(chosen)), PROMPTS, lookup_law.prefixes()))
    drafts = list(itertools.product(range(VOCAB), repeat=size))
    keys = [key for key in own for _ in drafts]
    wanted = np.array([draft for _ in own for draft in drafts])
    tables = [path_law.tables_of(setting, PARAMS)[0] for setting in chosen]
    uniforms = np.zeros(wanted.shape)
    for row, ((s, prompt, begun), draft) in enumerate(zip(keys, wanted.tolist(), strict=True)):
        for i, token in enumerate(draft):
            q = q_behind((*prompt, *begun, *draft[:i]), tables[s])
            uniforms[row, i] = q[:token].sum() + q[token] / 2
    batch = [chosen[s] for s, _, _ in keys]
    rules, index = path_law.make_rules(batch)
    rows = path_law.make_batch(batch, 0)._replace(rule_index=np.array(index))
    texts = [(*prompt, *begun) for _, prompt, begun in keys]
    slots = max(map(len, texts)) + size + 1
    text = np.random.default_rng(0).integers(0, VOCAB, (len(texts), slots)).astype(np.int32)
    for row, tokens in zip(text, texts, strict=True):
        row[: len(tokens)] = tokens
    length = np.array([len(tokens) for tokens in texts], np.int32)
    read = np.array([len(prompt) for _, prompt, _ in keys], np.int32)
    last = text[np.arange(len(texts)), length - 1]
    contexts = np.array([lookup_law.context_of(tokens) for tokens in texts])
    bonus = any(rules_lib.uses_q(rule) for rule in rules)
    table = jnp.asarray(PARAMS["expert"])

    @jax.jit
    def run(text, length, uniforms, rows, rules):
        prompt = jnp.where(jnp.arange(slots) < read[:, None], text, VOCAB - 1)
        state = drafter.prefill(PARAMS["drafter"], prompt, read, slots, size + 1)
        request = Request(
            text,
            length,
            last,
            last,
            length - 1,
            uniforms,
            rows.temperature,
            rows.drafter_truncation,
            size,
        )
        draft, _ = drafter.draft(jnp.asarray(PARAMS["drafter"]), state, request, None, bonus)
        context, logits = contexts, [table[contexts]]
        for i in range(size):
            context = (context * VOCAB + draft.tokens[:, i]) % len(table)
            logits.append(table[context])
        noise = verify.Uniforms(jnp.zeros((len(length), size)), jnp.zeros(len(length)))
        logits = jnp.stack(logits, 1)
        return draft, decide_lib.decide("token", False, rules, rows, draft, logits, noise)

    return keys, wanted, *run(text, length, uniforms.astype(np.float32), rows, rules)


def check(drafter, size, methods, chosen):
    """Raises AssertionError unless answers are of the law that the definition of q implies."""
    keys, wanted, draft, decision = blocks(drafter, size, chosen)
    q = np.asarray(draft.q.q[:, :size], np.float64)
    chance = np.take_along_axis(q, wanted[..., None], -1)[..., 0].prod(-1)
    drawn = (np.asarray(draft.tokens) == wanted).all(-1)
    # What is likely is drafted by the noise in its middle, and what is not never.
    np.testing.assert_array_equal(drawn, chance > 0)
    assert 0 < drawn.mean() < 1
    for method in methods:
        laws = lookup_law.sequence_laws(
            keys, draft, draft.q.q[:, :size], decision, size, method, chance
        )
        for s, setting in enumerate(chosen):
            whole = lookup_law.law_of(targets(setting))
            for prompt, expected in zip(PROMPTS, whole, strict=True):
                message = f"{setting} {prompt} {method}"
                np.testing.assert_allclose(
                    laws[s, prompt], expected, atol=2e-5, err_msg=message
                )


@pytest.mark.parametrize("size", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))])
def test_every_rule_that_works_has_one_law_at_every_length(size):
    chosen = lookup_law.settings()
    if size == 3:  # thousands of drafts
        chosen = [setting for setting in chosen if setting.temperature == 1]
    check(JOINED, size, verify.METHODS, chosen)


@dataclasses.dataclass(frozen=True)
class OnlyOnce(LookupOrModelDrafter):
    """Looks up where the block begins, and not again."""

    def draft(self, params, state, request, ends_draft, bonus):
        """See `Drafter.draft`."""
        made, state = super().draft(params, state, request, ends_draft, bonus)
        none = dataclasses.replace(self, lookup=LookupDrafter(99, 99))
        other, _ = LookupOrModelDrafter.draft(none, params, state, request, ends_draft, bonus)
        found = made.calls["drafter"] == 0
        chosen = jax.tree.map(
            lambda a, b: jnp.where(found.reshape(-1, *(1,) * (a.ndim - 1)), a, b), made, other
        )
        return chosen, state


@dataclasses.dataclass(frozen=True)
class Forgets(LookupOrModelDrafter):
    """Goes on reading from the newest token, whatever was drafted without the model."""

    def draft(self, params, state, request, ends_draft, bonus):
        """See `Drafter.draft`."""
        ahead = state._replace(seen=request.position)
        return super().draft(params, ahead, request, ends_draft, bonus)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", [OnlyOnce, Forgets])
def test_mutants_break_the_law(mutant):
    chosen = [s for s in lookup_law.settings() if s.rule == "token_v3"]
    with pytest.raises(AssertionError):
        check(mutant(LOOKUP, path_law.TABLE), 2, ("token",), chosen)


# ---- what the model has read, of both families ----

RULES = tuple(rules_lib.make(name, alpha=0.3) for name in ("token_v3", "mixture"))


@pytest.mark.parametrize(
    "pair", ["decoder_only", pytest.param("encoder_decoder", marks=pytest.mark.slow)], indirect=True
)
def test_q_is_the_lookups_or_the_models_that_has_read_the_whole_text(pair):
    few = [[token % 6 for token in prompt] for prompt in toys.prompts(seed=2)]
    rows = toys.greedy_rows(
        few,
        temperature=[0.0, 1.0] * (toys.BATCH // 2),
        rule_index=np.arange(toys.BATCH) % 3,
        drafter_truncation=None,
        expert_truncation=None,
    )
    drafter = LookupOrModelDrafter(LookupDrafter(2, 1), pair.drafter)
    decoder = Decoder(pair.expert, drafter, toys.SIZE, toys.ROOM)
    records = jax.device_get(list(trace(decoder, pair.params, (*toys.SPEC, *RULES), rows)))
    state, _ = records[-1]
    tokens = np.asarray(state.tokens)[:, : toys.ROOM]
    given = rows.prompt, rows.prompt_length, tokens
    by_model, by_expert = (
        np.asarray(jax.jit(model.answer_logits)(pair.params[role], *given))
        for role, model in (("drafter", pair.drafter), ("expert", pair.expert))
    )
    asked = found = after_lookups = 0
    before, silent = np.zeros(toys.BATCH, int), np.zeros(toys.BATCH, int)
    for state, record in records:
        emitted, qs = record.emitted, record.draft.q.q
        asks = record.draft.calls["drafter"] > 0
        for b in np.flatnonzero(emitted):
            prompt = rows.prompt[b, : rows.prompt_length[b]].tolist()
            for i in range(min(emitted[b], toys.SIZE)):
                at = before[b] + i
                token = lookup_law.followed([*prompt, *tokens[b, :at].tolist()], 2, 1)
                q = qs[b, i]
                if token is not None:
                    np.testing.assert_array_equal(q, np.arange(toys.VOCAB) == token)
                    found += 1
                    continue
                own = path_law.as_sampled(
                    by_model[b, at][None], float(rows.temperature[b]), path_law.Limits(toys.VOCAB)
                )[0]
                np.testing.assert_allclose(q, own, atol=2e-5)
                asked += 1
                after_lookups += i == 0 and silent[b] > toys.SIZE + 2
            looked = lookup_law.followed([*prompt, *tokens[b, : before[b]].tolist()], 2, 1)
            assert asks[b] == (looked is None)
            silent[b] = 0 if asks[b] else silent[b] + emitted[b]
        before = state.count
    assert min(asked, found) > toys.BATCH and after_lookups
    # Greedy `spec` is the expert's own text.
    greedy = np.flatnonzero((rows.temperature == 0) & (rows.rule_index == 0))
    for b in greedy:
        count = before[b]
        assert tokens[b, :count].tolist() == by_expert[b, :count].argmax(-1).tolist()
    assert len(greedy)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="rule chow needs the drafter's distribution"):
        JOINED.check(path_law.TABLE, 2, (rules_lib.make("chow", alpha=0.3),), None)
    with pytest.raises(UserError, match="must share one vocabulary"):
        JOINED.check(toys.Table(VOCAB + 1), 2, toys.SPEC, None)
