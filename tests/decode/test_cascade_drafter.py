"""Three models: what the two smaller ones draft is of pi_1's law, the whole of the outer rule's.

Three checks, each of which planted mistakes must fail: every random outcome of a block, enumerated
through `CascadeDrafter.draft`; each recorded q against pi_1 of its prefix; and the law of whole
sampled sequences against the outer rule applied to (pi_1, p).
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import rules as rules_lib
from speccascade.decode import (
    CascadeDrafter,
    Decoder,
    ModelDrafter,
    autoregressive,
    generate,
    make_rows,
    step,
    trace,
)
from speccascade.decode.drafters import Request, cascade
from speccascade.errors import UserError
from speccascade.randomness import Role
from tests import rule_oracle
from tests.decode import path_law, toys
from tests.decode.path_law import TABLE, VOCAB, Limits, Setting
from tests.decode.test_decode_mutants import edited, fresh

COLD = {"temperature": 0.7, "drafter": Limits(2), "expert": Limits(3, 0.9, 0.15)}


def random_tables(seed: int) -> dict:
    """Returns the parameters of three random tables, as a decoder takes them."""
    pair, third = toys.tables(VOCAB, seed), toys.tables(VOCAB, seed + 100)
    small = {"drafter": pair["drafter"], "middle": third["expert"]}
    return {"drafter": small, "expert": pair["expert"]}


PARAMS = random_tables(seed=3)


def mutant(old: str, new: str) -> type[CascadeDrafter]:
    """Returns a cascade drafter with a piece of its module's source replaced."""
    copy = edited(cascade, old, new).CascadeDrafter
    own = {name: value for name, value in vars(copy).items() if callable(value)}
    methods = {name: own[name] for name in ("prefill", "draft", "_round", "_score")}
    return type("Mutant", (CascadeDrafter,), methods)


SMALLEST_Q = "q=append(block.q, made.pi),", "q=append(block.q, draft.q.spread(made.pi).q),"
KEEPS_REJECTED_TAIL = (
    "count=verdict.num_accepted + 1,",
    "count=0 * verdict.num_accepted + size + 1,",
)
KEEPS_DROPPED_TAIL = "tokens=block.tokens[:, :size],", "tokens=block.tokens[:, 1 : size + 1],"
ONE_NOISE_PER_BLOCK = (
    "noise = _at(noise, jnp.minimum(block.count, request.size))",
    ("noise = noise[:, 0]"),
)
ONE_NOISE_PER_ROUND = (
    "Uniforms(noise[:, n : 2 * n], noise[:, 2 * n])",
    ("Uniforms(noise[:, :n], noise[:, 2 * n])"),
)
FORGETS_THE_LAST = "rereads=not bonus", "rereads=False"



def target(rule, *tables):
    """Returns a rule's pi, `[C, V]`, float64."""
    knobs = {key: float(value) for key, value in rule.knobs.items()}
    return rule_oracle.targets(rule.name, knobs, *tables)[0]


# ---- every random outcome of a block ----

GRID = 4  # tables of quarters: uniforms in the middle of a quarter stand for all of it


def quarters(seed: int) -> dict:
    """Returns two tables whose acceptance ratios and residuals are whole quarters too."""
    rng = np.random.default_rng(seed)
    made = {role: np.zeros((VOCAB * VOCAB, VOCAB)) for role in ("drafter", "middle")}
    for context in range(VOCAB * VOCAB):
        for table in made.values():
            table[context] = rng.permutation([0.5, 0.25, 0.25])
        if context % 3 == 0:
            made["drafter"][context] = rng.permutation([1.0, 0.0, 0.0])
    return made


def draft_all(kind, rule, tables: dict, size: int, n: int, bonus: bool):
    """Returns the drafts of a block under every outcome of its random numbers, with their q."""
    drafter = kind(TABLE, TABLE, n)
    starts = size + 1 if bonus else size  # offsets at which a round may begin
    used = starts * (2 * n + 1)
    grid = (np.arange(GRID) + 0.5) / GRID
    outcomes = np.array(list(itertools.product(grid, repeat=used)), np.float32)
    noise = np.full((len(outcomes), drafter.uniforms(size)), 0.5, np.float32)
    noise[:, :used] = outcomes
    prompt = np.tile(np.array([[0, 2]], np.int32), (len(noise), 1))
    length = np.full(len(noise), 2, np.int32)
    params = {r: jnp.log(jnp.maximum(jnp.float32(t), 1e-30)) for r, t in tables.items()}

    @jax.jit
    def run(noise):
        state = drafter.prefill(params, prompt, length, 2 + size + 1, size + 1)
        request = Request(
            text=prompt,
            length=length,
            previous=prompt[:, 0],
            last=prompt[:, 1],
            position=length - 1,
            uniforms=noise,
            temperature=jnp.ones(len(noise)),
            truncation=None,
            size=size,
            drafting=rule,
        )
        return drafter.draft(params, state, request, None, bonus)[0]

    return jax.tree.map(np.asarray, run(noise))


def check_every_outcome(kind, rule, size: int, n: int, bonus: bool) -> None:
    """Raises AssertionError unless drafts and their q are what pi_1 gives, to the last outcome."""
    tables = quarters(seed=1)
    q, m = tables["drafter"], tables["middle"]
    pi = target(rule, q, m, q, m)
    draft = draft_all(kind, rule, tables, size, n, bonus)
    for tokens in itertools.product(range(VOCAB), repeat=size):
        path = [0, 2, *tokens]
        contexts = [a * VOCAB + b for a, b in itertools.pairwise(path)]
        expected = np.prod([pi[c, t] for c, t in zip(contexts, tokens, strict=False)])
        own = np.all(draft.tokens == tokens, axis=1)
        assert own.mean() == pytest.approx(expected, abs=1e-12), tokens
        for place in range(size + bonus):
            assert np.abs(draft.q.q[own, place] - pi[contexts[place]]).max(initial=0) < 1e-6
    assert draft.valid.all() and np.all(draft.length == size)


SPEC, CHOW = rules_lib.make("spec"), rules_lib.make("chow", alpha=0.25)
BLOCKS = [(SPEC, 1, 2, False), (SPEC, 2, 1, False), (CHOW, 2, 1, True)]


@pytest.mark.parametrize(
    ("rule", "size", "n", "bonus"), BLOCKS, ids=lambda each: getattr(each, "name", each)
)
def test_every_outcome_of_a_block(rule, size, n, bonus):
    check_every_outcome(CascadeDrafter, rule, size, n, bonus)


@pytest.mark.parametrize(
    "edit",
    [SMALLEST_Q, KEEPS_REJECTED_TAIL, KEEPS_DROPPED_TAIL, ONE_NOISE_PER_BLOCK, ONE_NOISE_PER_ROUND],
)
def test_mutants_fail_the_enumeration(edit):
    with pytest.raises(AssertionError):
        check_every_outcome(mutant(*edit), SPEC, 2, 1, False)


# ---- each q, and the caches behind it ----


def tables_of(rule, setting: Setting, params):
    """Returns pi_1 and the same at temperature 1, `[C, V]`, float64."""
    small = params["drafter"]
    both = {"drafter": small["drafter"], "expert": small["middle"]}
    q, m, q1, m1 = path_law.tables_of(setting._replace(expert=setting.drafter), both)
    return target(rule, q, m, q1, m1), target(rule, q1, m1, q1, m1)


BATCH, ROOM = 24, 12
NEVER = np.zeros((1, VOCAB), np.int32)


def some_rows(rule):
    """Returns rows without ends, with prompts of one to four tokens."""
    rng = np.random.default_rng(0)
    return make_rows(
        [rng.integers(0, VOCAB, 1 + i % 4).tolist() for i in range(BATCH)],
        stop_table=NEVER,
        max_new_tokens=ROOM,
        prompt_slots=4,
        temperature=1.0,
        drafting=rule,
    )


def close(params: dict) -> dict:
    """Returns parameters of a middle model close to the expert, and a drafter far from both."""
    expert, small = params["expert"], params["drafter"]
    return {"drafter": {**small, "middle": 0.3 * small["middle"] + expert}, "expert": expert}


def check_each_q(kind, outer, rule, size: int, n: int) -> None:
    """Raises AssertionError unless every recorded q is pi_1 of its prefix."""
    params, rows = close(PARAMS), some_rows(rule)
    pi, pi1 = tables_of(rule, Setting(outer.name, {}), params)
    decoder = fresh()(TABLE, kind(TABLE, TABLE, n), size, ROOM)
    before, whole = np.zeros(BATCH, int), 0
    for state, record in trace(decoder, params, (outer,), rows):
        on = np.asarray(record.emitted) > 0
        for b in np.flatnonzero(on):
            text = [0, *rows.prompt[b, : rows.prompt_length[b]]]
            text += [*np.asarray(state.tokens)[b, : before[b]], *record.draft.tokens[b]]
            start = len(text) - size
            for i in range(record.draft.q.q.shape[1]):
                context = text[start + i - 2] * VOCAB + text[start + i - 1]
                np.testing.assert_allclose(record.draft.q.q[b, i], pi[context], atol=1e-5)
                np.testing.assert_allclose(record.draft.q.q1[b, i], pi1[context], atol=1e-5)
        before = np.asarray(state.count)
        whole += np.sum(on & (np.asarray(record.verdict.num_accepted) == size))
    assert whole > BATCH / 2, "too few blocks were kept whole to show what that does to caches"


MIDDLE = [SPEC, rules_lib.make("token_v3", alpha=0.5)]
OUTER = [SPEC, rules_lib.make("mixture", alpha=0.3)]


@pytest.mark.parametrize(
    ("outer", "rule", "size", "n"),
    [
        (OUTER[0], MIDDLE[0], 3, 1),
        (OUTER[1], MIDDLE[1], 3, 1),
        (OUTER[0], MIDDLE[1], 2, 3),
        (OUTER[1], MIDDLE[0], 2, 3),
    ],
    ids=lambda each: getattr(each, "name", each),
)
def test_each_q_is_pi_1_of_its_prefix(outer, rule, size, n):
    check_each_q(CascadeDrafter, outer, rule, size, n)


def test_a_cache_one_token_short_is_caught():
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_each_q(mutant(*FORGETS_THE_LAST), SPEC, MIDDLE[1], 3, 1)


# ---- the law of sequences ----


def law(rule, setting: Setting, params) -> np.ndarray:
    """Returns the law of sequences that the outer rule makes of (pi_1, p)."""
    q, q1 = tables_of(rule, setting, params)
    expert = {"drafter": params["expert"], "expert": params["expert"]}
    _, p, _, p1 = path_law.tables_of(setting, expert)
    pi, _ = rule_oracle.targets(setting.rule, setting.knobs, q, p, q1, p1)
    return path_law.enumeration.target_law(pi[None], path_law.LIMIT)[0]


def check_law(
    drafter, rule, chosen, draws: int, batches: int, verifier="token", size=2, params=PARAMS
):
    made = path_law.decoder(verifier, fresh(), drafter, size)

    def decode(batch, rows):
        outer = path_law.make_rules(batch)[0]
        return generate(made, params, outer, rows._replace(drafting=rule))

    path_law.check(decode, params, chosen, draws, batches, law=functools.partial(law, rule))


MIDDLE_RULES = {
    "spec": {},
    "token_v3": {"alpha": 0.5},
    "chow": {"alpha": 0.5},
    "bild": {"alpha": 0.9, "fallback": 0.5},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("middle", "verifier", "n"),
    [("token_v3", "token", 2), ("bild", "block", 3)],
)
def test_every_rule_over_another_follows_its_law(middle, verifier, n):
    rule = rules_lib.make(middle, **MIDDLE_RULES[middle])
    drafter = CascadeDrafter(TABLE, TABLE, n)
    check_law(drafter, rule, path_law.settings(), 500, 8, verifier)


def test_spec_over_another_follows_its_law_without_the_bonus_position():
    rule = rules_lib.make("chow", **MIDDLE_RULES["chow"])
    chosen = [Setting("spec", {}), Setting("spec", {}, **COLD)]
    check_law(CascadeDrafter(TABLE, TABLE, 2), rule, chosen, 4000, 3, size=3)


@pytest.mark.slow
@pytest.mark.parametrize("middle", MIDDLE_RULES)
@pytest.mark.parametrize(("size", "n"), [(1, 1), (1, 3), (3, 1), (4, 2), (3, 3)])
@pytest.mark.parametrize("verifier", ["token", "block"])
def test_every_rule_over_another_follows_its_law_at_length(middle, size, n, verifier):
    rule = rules_lib.make(middle, **MIDDLE_RULES[middle])
    drafter, params = CascadeDrafter(TABLE, TABLE, n), random_tables(seed=8)
    check_law(drafter, rule, path_law.settings(), 500, 20, verifier, size, params)


MIXTURE = [Setting("mixture", {"alpha": 0.3})]


def test_one_key_for_inner_and_outer_draws_is_caught(monkeypatch):
    real = step.uniforms_by_role

    def one_key(keys, start, counts):
        return {
            **real(keys, start, counts),
            Role.DRAFT: real(keys, start, {Role.ACCEPT: counts[Role.DRAFT]})[Role.ACCEPT],
        }

    monkeypatch.setattr(step, "uniforms_by_role", one_key)
    with pytest.raises(AssertionError, match="is not of its law"):
        check_law(CascadeDrafter(TABLE, TABLE, 1), MIDDLE[1], MIXTURE, 8000, 4)


def test_unchanged_the_law_holds():
    check_law(CascadeDrafter(TABLE, TABLE, 1), MIDDLE[1], MIXTURE, 8000, 4)


# ---- rows, counts, texts ----


def test_neither_place_nor_neighbours_matter():
    knobs = np.linspace(0.1, 0.9, BATCH)
    rows = some_rows(rules_lib.make("token_v3", alpha=knobs))
    decoder = Decoder(TABLE, CascadeDrafter(TABLE, TABLE, 2), 3, ROOM)
    run = functools.partial(generate, decoder, PARAMS, (OUTER[1],))
    out = run(rows)
    order, own = np.random.default_rng(1).permutation(BATCH), BATCH // 2
    moved = jax.tree.map(lambda x: x[order], rows._replace(stop_table=np.zeros(BATCH)))
    # In the same program, beside rows that draw otherwise.
    others = np.where(np.arange(BATCH) < own, 0, 1000).astype(np.int32)
    moved = moved._replace(stop_table=NEVER, example_id=moved.example_id + others)
    again, order = run(moved), order[:own]
    tokens = np.asarray(out.tokens)[order, :ROOM]
    np.testing.assert_array_equal(again.tokens[:own, :ROOM], tokens)
    for name, whole in out.stats.by_name().items():
        found = again.stats.by_name()[name][:own]
        np.testing.assert_allclose(found, np.asarray(whole)[order], atol=1e-5, err_msg=name)


LONG = Decoder(TABLE, CascadeDrafter(TABLE, TABLE, 2), 5, 24)  # four blocks that are kept whole


def test_models_that_agree_take_the_fewest_passes():
    size, n = LONG.draft_length, LONG.drafter.draft_length
    expert = PARAMS["expert"]
    params = {"drafter": {"drafter": expert, "middle": expert}, "expert": expert}
    rows = some_rows(SPEC)._replace(max_new_tokens=np.full(BATCH, 4 * (size + 1), np.int32))
    stats = generate(LONG, params, (SPEC,), rows).stats
    rounds = -(-size // (n + 1))
    np.testing.assert_array_equal(stats.expert_calls, 4)
    np.testing.assert_array_equal(stats.drafter_calls["middle"], 4 * rounds)
    np.testing.assert_array_equal(stats.drafter_calls["drafter"], 4 * rounds * n)
    np.testing.assert_array_equal(stats.rejected, 0)


@pytest.mark.slow
def test_greedy_spec_over_spec_is_the_experts_own_text(pair):
    rows = toys.greedy_rows(toys.prompts(seed=3))
    close, far = pair.close_params, pair.params
    params = {
        "drafter": {"drafter": far["drafter"], "middle": close["drafter"]},
        "expert": close["expert"],
    }
    drafter = CascadeDrafter(pair.drafter, pair.expert, 2)
    decoder = Decoder(pair.expert, drafter, toys.SIZE, toys.ROOM)
    out = generate(decoder, params, toys.SPEC, rows._replace(drafting=SPEC))
    alone = autoregressive(pair.expert, params["expert"], rows, toys.ROOM)
    assert toys.texts(out) == toys.texts(alone)
    assert out.stats.expert_calls.mean() < 0.8 * toys.ROOM  # the middle model agrees often
    calls = out.stats.drafter_calls
    assert np.all(calls["middle"] <= calls["drafter"])


# ---- bad input ----


def test_a_middle_model_that_is_not_finite_ends_its_rows():
    params = {**PARAMS, "drafter": {**PARAMS["drafter"]}}
    params["drafter"]["middle"] = np.full_like(PARAMS["drafter"]["middle"], np.nan)
    out = generate(LONG, params, (SPEC,), some_rows(SPEC))
    assert np.all(out.invalid) and not np.any(out.num_tokens)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="middle_draft_length=0 must be at least 1"):
        CascadeDrafter(TABLE, TABLE, 0)
    other = toys.Table(VOCAB + 1)
    decoder = Decoder(TABLE, CascadeDrafter(TABLE, other, 1), 2, ROOM)
    with pytest.raises(UserError, match="the middle model has 4 token ids and the expert 3"):
        generate(decoder, PARAMS, (SPEC,), some_rows(SPEC))
    decoder = Decoder(TABLE, CascadeDrafter(TABLE, TABLE, 1), 2, ROOM)
    with pytest.raises(UserError, match="say by which rule to draft"):
        generate(decoder, PARAMS, (SPEC,), some_rows(None))
    two = Decoder(TABLE, ModelDrafter(TABLE), 2, ROOM)
    with pytest.raises(UserError, match="this drafter asks nothing of them"):
        generate(two, toys.tables(VOCAB, 3), (SPEC,), some_rows(SPEC))
