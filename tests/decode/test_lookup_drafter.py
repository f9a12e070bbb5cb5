"""Drafting by lookup: what is found, the law that rules have over it, the texts, the memory."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import rules as rules_lib
from speccascade import verify
from speccascade.decode import (
    Decoder,
    LookupDrafter,
    ModelDrafter,
    autoregressive,
    generate,
    loop,
    make_rows,
    trace,
)
from speccascade.decode.drafters import interface, lookup
from speccascade.errors import UserError
from tests.decode import lookup_law, path_law, toys
from tests.decode.path_law import Setting
from tests.decode.test_decode_mutants import edited, fresh

PARAMS = toys.tables(path_law.VOCAB, seed=3)
DRAFTERS = [LookupDrafter(), LookupDrafter(2, 2), LookupDrafter(1, 1)]


# ---- what is found ----

SLOTS = 24
find = jax.jit(lookup.look_up, static_argnums=(2, 3))


@hypothesis.given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=SLOTS), min_size=3, max_size=3),
    st.sampled_from([(1, 1), (2, 1), (3, 1), (3, 2), (4, 4)]),
    st.integers(0, 2),
)
@hypothesis.settings(max_examples=150)
def test_lookup_is_that_of_plain_python(texts, sizes, behind):
    text = np.full((len(texts), SLOTS), behind, np.int32)
    for row, own in zip(text, texts, strict=True):
        row[: len(own)] = own
    token, found = find(text, np.array([len(own) for own in texts]), *sizes)
    expected = [lookup_law.followed(own, *sizes) for own in texts]
    assert np.asarray(found).tolist() == [t is not None for t in expected]
    assert np.asarray(token).tolist() == [t or 0 for t in expected]


def test_the_longest_n_gram_wins_and_of_several_the_first():
    text = [3, 7, 2, 3, 8, 1, 2, 3, 9, 2, 3, 6, 1, 2, 3]
    assert [lookup_law.followed(text, n, 1) for n in (3, 2, 1)] == [9, 8, 7]
    assert lookup_law.followed([4, 4], 3, 1) == 4 and lookup_law.followed([4], 3, 1) is None
    assert lookup_law.followed([1, 2, 3], 3, 1) is None


@hypothesis.given(st.lists(st.integers(0, 2), min_size=1, max_size=20), st.integers(1, 4))
def test_what_was_found_goes_on_being_found(text, least):
    token = lookup_law.followed(text, 4, least)
    for _ in range(6 if token is not None else 0):
        text.append(token)
        token = lookup_law.followed(text, 4, least)
        assert token is not None


# ---- the law ----


@pytest.mark.parametrize(
    ("drafter", "size"),
    [(DRAFTERS[0], 1), (DRAFTERS[0], 2), (DRAFTERS[0], 3), (DRAFTERS[1], 2)]
    + [
        pytest.param(drafter, size, marks=pytest.mark.slow)
        for drafter, size in [
            (DRAFTERS[1], 1),
            (DRAFTERS[1], 3),
            *((DRAFTERS[2], n) for n in (1, 2, 3, 4)),
        ]
    ],
)
def test_every_rule_that_works_has_one_law_at_every_length(drafter, size):
    lookup_law.check(drafter, size, verify.METHODS, PARAMS)


def test_blocks_meet_every_case_and_defer_all_where_nothing_is_found():
    drafter, chosen = DRAFTERS[1], lookup_law.settings()
    keys, draft, _, decision = lookup_law.blocks(drafter, 2, chosen, PARAMS)
    assert set(np.asarray(draft.length).tolist()) == {0, 2}
    drafted = np.asarray(draft.length) > 0
    kept = np.take_along_axis(decision.pi[:, :2], draft.tokens[..., None], 2)[drafted]
    assert np.any(kept == 0) and np.any(kept == 1) and np.any((kept > 0) & (kept < 1))
    # Deferral, at the first position.
    found = np.asarray(decision.deferral[:, 0])
    whole = [lookup_law.targets(drafter, setting, PARAMS)[1] for setting in chosen]
    assert [key[0] for key in keys] == sorted(key[0] for key in keys)
    np.testing.assert_allclose(found, np.concatenate(whole), atol=1e-5)
    assert set(found[~drafted & ~np.isnan(found)]) == {1.0} and np.isnan(found).any()


@pytest.mark.parametrize(
    ("verifier", "size"),
    [
        ("token", 2),
        pytest.param("block", 2, marks=pytest.mark.slow),
        pytest.param("token", 1, marks=pytest.mark.slow),
        pytest.param("block", 3, marks=pytest.mark.slow),
    ],
)
def test_sampled_answers_follow_the_law(verifier, size):
    drafter = LookupDrafter()
    decode = path_law.speculative(path_law.decoder(verifier, drafter=drafter, size=size), PARAMS)
    law = functools.partial(lookup_law.half_and_half, drafter)
    path_law.check(decode, PARAMS, lookup_law.settings(), draws=500, batches=8, law=law)


def test_both_verifiers_keep_alike():
    """With a one-hot q the chance to keep i tokens is one for both, at every length."""
    rng = np.random.default_rng(0)
    batch, size, vocab = 400, 4, 3
    draft = rng.integers(0, vocab, (batch, size))
    pi = rng.dirichlet([0.5] * vocab, (batch, size + 1))
    pi[rng.random((batch, size + 1)) < 0.2] = np.eye(vocab)[0]  # certain, right or wrong
    length = rng.integers(0, size + 1, batch)
    with jax.enable_x64(True):
        q = jnp.asarray(np.eye(vocab)[draft])
        (token, after), (block, after_block) = (
            lookup_law.law_of_blocks(
                jnp.asarray(draft), q, jnp.asarray(pi), length=length, method=method
            )
            for method in ("token", "block")
        )
    np.testing.assert_allclose(token, block, atol=1e-12)
    reached = np.asarray(token) > 1e-9
    np.testing.assert_allclose(
        np.where(reached[..., None], after, 0),
        np.where(reached[..., None], after_block, 0),
        atol=1e-9,
    )


# ---- mistakes that the law must show ----


def mutant(old: str, new: str, module=lookup) -> LookupDrafter:
    """Returns a drafter of an edited module."""
    copy = edited(module, old, new).LookupDrafter
    return type("Mutant", (LookupDrafter,), {"draft": vars(copy)["draft"]})()


class CopiesOn(LookupDrafter):
    """Looks up once per block and goes on from there, as public implementations do."""

    def draft(self, params, state, request, ends_draft, bonus):
        """See `Drafter.draft`."""
        # In a text whose tokens are numbered by their places, what follows is the place to copy.
        text, length = request.text, request.length
        at = jnp.arange(text.shape[1])
        longest, matches = jnp.zeros_like(text), at < length[:, None] - 1
        for back in range(self.max_ngram):
            own = jnp.take_along_axis(text, jnp.maximum(length[:, None] - 1 - back, 0), 1)
            matches &= (jnp.roll(text, back, 1) == own) & (at >= back)
            longest += matches
        start = jnp.argmax(longest, 1)[:, None] + 1
        places = start + jnp.arange(request.size + bonus)
        found = (jnp.max(longest, 1) >= self.min_ngram)[:, None] & (places < length[:, None])
        tokens = jnp.take_along_axis(text, jnp.minimum(places, len(at) - 1), 1)
        drafted = jnp.cumprod(found[:, : request.size].astype(jnp.int32), 1).sum(1)
        made = interface.Draft(
            tokens[:, : request.size],
            interface.OneHot(tokens, found),
            drafted,
            {},
            jnp.ones_like(drafted, bool),
        )
        return made, state


MUTANTS = {
    "copies on from the first match": CopiesOn,
    "no lookup at the bonus position": lambda: mutant(
        "OneHot(tokens, found)", "OneHot(tokens[:, :-1], found[:, :-1])"
    ),
    "keeps what was not found": lambda: mutant(
        "jnp.where(found[:, 0], request.size, 0)", "jnp.full_like(tokens[:, 0], request.size)"
    ),
    "reads what stands behind the text": lambda: mutant(
        "length + 1), (token, found)", "length + 2), (token, found)"
    ),
}


@pytest.mark.parametrize("plant", MUTANTS.values(), ids=MUTANTS)
def test_mutants_break_the_law(plant):
    chosen = [s for s in lookup_law.settings() if s.rule in ("token_v3", "mixture")]
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        lookup_law.check(plant(), 2, ("token",), PARAMS, chosen)


def test_a_pi_that_is_not_p_where_nothing_was_found_is_caught(monkeypatch):
    monkeypatch.setattr(interface.OneHot, "has_gaps", False)
    chosen = [s for s in lookup_law.settings() if s.rule == "token_v3"]
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        lookup_law.check(DRAFTERS[1], 2, ("token",), PARAMS, chosen)


def test_a_mutant_breaks_the_sampled_law_too():
    """The text of a row that is one token short."""

    class Short(LookupDrafter):
        def draft(self, params, state, request, ends_draft, bonus):
            """See `Drafter.draft`."""
            short = request._replace(length=jnp.maximum(request.length - 1, 1))
            return super().draft(params, state, short, ends_draft, bonus)

    made = path_law.decoder("token", fresh(), Short())
    decode = path_law.speculative(made, PARAMS)
    law = functools.partial(lookup_law.half_and_half, LookupDrafter())
    chosen = [Setting("mixture", {"alpha": 0.3})]
    with pytest.raises(AssertionError, match="is not of its law"):
        path_law.check(decode, PARAMS, chosen, draws=4000, batches=3, law=law)


# ---- texts of both families ----

WORKING = tuple(rules_lib.make(name, alpha=0.3) for name in ("token_v3", "mixture", "lossy"))


def decoder(pair: toys.Pair, verifier: str = "token") -> Decoder:
    return Decoder(pair.expert, LookupDrafter(), toys.SIZE, toys.ROOM, verifier)


@pytest.mark.parametrize("pair", ["encoder_decoder"], indirect=True)  # text and cache differ
def test_greedy_spec_is_the_experts_own_text(pair):
    rows = toys.greedy_rows(toys.prompts(seed=3))
    params = {"drafter": (), "expert": pair.params["expert"]}
    out = generate(decoder(pair), params, toys.SPEC, rows)
    alone = autoregressive(pair.expert, params["expert"], rows, toys.ROOM, logprobs=True)
    assert toys.texts(out) == toys.texts(alone)
    stats = out.stats
    assert not stats.drafter_calls and np.all(stats.rejected <= stats.expert_calls)
    assert stats.accepted.sum() > 0  # such texts repeat themselves
    own = stats.emitted - stats.accepted  # the expert's: one a block, but where the room ended it
    assert np.all((own >= stats.expert_calls - 1) & (own <= stats.expert_calls))


def test_each_draft_is_the_lookup_in_prompt_and_answer(pair):
    rows = toys.mixed_rows(seed=2, rule_index=np.arange(toys.BATCH) % len(WORKING))
    rows = rows._replace(drafter_truncation=None)
    params = {"drafter": (), "expert": pair.params["expert"]}
    texts = [row[:n].tolist() for row, n in zip(rows.prompt, rows.prompt_length, strict=True)]
    before, drafted = np.zeros(toys.BATCH, int), 0
    for state, record in trace(decoder(pair, "block"), params, WORKING, rows):
        emitted, tokens = np.asarray(record.emitted), np.asarray(state.tokens)
        for b in np.flatnonzero(emitted):
            text, length = list(texts[b]), 0
            for i in range(toys.SIZE + 1):
                token = lookup_law.followed(text, 3, 1)
                assert bool(record.draft.q.found[b, i]) == (token is not None)
                if token is None:
                    assert i == 0
                    break
                assert int(record.draft.q.tokens[b, i]) == token
                length += i < toys.SIZE
                text.append(token)
            assert int(record.draft.length[b]) == length
            drafted += length
            texts[b] += tokens[b, before[b] : before[b] + emitted[b]].tolist()
        before = np.asarray(state.count)
        np.testing.assert_array_equal(state.length, rows.prompt_length + before)
    assert drafted > toys.BATCH


@pytest.mark.parametrize("pair", ["decoder_only"], indirect=True)  # a lookup knows no model
def test_what_stands_behind_a_prompt_does_not_matter(pair):
    rows = toys.mixed_rows(seed=2, rule_index=0)._replace(drafter_truncation=None)
    own = np.arange(toys.SLOTS) < rows.prompt_length[:, None]
    params = {"drafter": (), "expert": pair.params["expert"]}
    found = []
    for prompt in (rows.prompt, np.where(own, rows.prompt, 3)):
        given = rows._replace(prompt=np.array(prompt))
        *_, (state, _) = trace(decoder(pair, "block"), params, WORKING, given)
        own_tokens = np.arange(toys.ROOM) < np.asarray(state.count)[:, None]
        found.append(np.where(own_tokens, np.asarray(state.tokens)[:, : toys.ROOM], -1))
    np.testing.assert_array_equal(*found)


# ---- memory ----


def temporaries(drafter, model: toys.Table, verifier: str) -> int:
    """Returns the bytes that the compiled loop needs beside its arguments."""
    rows = make_rows(
        [[1, 2, 3, 4]] * 4,
        stop_table=np.zeros((1, model.vocab_size), np.int32),
        max_new_tokens=8,
        prompt_slots=4,
        temperature=1.0,
    )
    made = Decoder(model, drafter, 5, 8, verifier)
    own = jax.ShapeDtypeStruct((model.vocab_size**2, model.vocab_size), np.float32)
    params = {"drafter": own if isinstance(drafter, ModelDrafter) else (), "expert": own}
    chosen = (rules_lib.make("token_v3", alpha=0.3),)
    state = jax.eval_shape(functools.partial(loop.prefill, made), params, rows)
    compiled = loop.run.lower(made, params, chosen, rows, state).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("verifier", ["token", pytest.param("block", marks=pytest.mark.slow)])
def test_no_distribution_is_written_out(verifier):
    model = toys.Table(1000)  # whose parameters nobody makes
    by_lookup, by_model = (
        temporaries(drafter, model, verifier) for drafter in (LookupDrafter(), ModelDrafter(model))
    )
    # A token rule does not read q1, and XLA drops it: what a model leaves is q [B, N + 1, V].
    assert by_lookup <= by_model - 4 * 4 * 6 * model.vocab_size


# ---- bad input ----


@pytest.mark.parametrize("name", ["drafter", *rules_lib.RULES])
def test_rules_that_need_a_distribution_are_refused(name):
    row = rules_lib.RULES[name]
    knobs = {key: 0.3 for key, knob in row.knobs.items() if key == "alpha"}
    if "head" in row.knobs:
        knobs["head"] = "shipped:gsm_symbolic"
    rule = rules_lib.make(name, **knobs)
    drafter = LookupDrafter()
    if name in lookup_law.RULES:
        drafter.check(None, 2, (rule,), None)
        return
    line = f"rule {name} needs the drafter's distribution and a lookup has none; take one of"
    with pytest.raises(UserError, match=line) as error:
        drafter.check(None, 2, (rule,), None)
    assert all(name in str(error.value) for name in lookup_law.RULES)


def test_what_does_not_fit_is_refused():
    for sizes in ((0, 0), (2, 3), (3, 0)):
        with pytest.raises(UserError, match="1 <= min_ngram <= max_ngram"):
            LookupDrafter(*sizes)
    made = Decoder(path_law.TABLE, LookupDrafter(), 0, 4)
    with pytest.raises(UserError, match="draft_length=0 must be at least 1"):
        loop.check(made, toys.SPEC)
