"""The rules: their closed forms, their endpoints, what they mean, and what they refuse."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from speccascade import learned_head, rules, vocab
from speccascade.errors import UserError
from speccascade.rules import RULES, Distributions
from speccascade.vocab import Vocab
from tests import toy_head
from tests.rule_oracle import BATCH, TOKEN_RULES, VOCAB, batches, is_exact, knobs_of, oracle, take

traces = []  # of the program below: a rule for each that was compiled


@jax.jit
def apply(rule, d):
    traces.append(rule)
    return rules.apply(rule, d)


def apply_to_many(rule, d):
    """Applies a rule to a multiple of B rows, B at a time: no other program."""
    parts = zip(*(x.reshape(-1, BATCH, VOCAB) for x in d), strict=True)
    made = [apply(rule, Distributions(*part)) for part in parts]
    return rules.Target(*(np.concatenate(x) for x in zip(*made, strict=True)))


# ---- properties ----


@pytest.mark.parametrize("name", RULES)
@given(data=st.data())
def test_target_is_a_distribution_and_its_closed_form(name, data):
    d, knobs = data.draw(batches()), data.draw(knobs_of(name))
    pi, deferred = (np.asarray(x) for x in apply(rules.make(name, **knobs), d))
    assert pi.dtype == np.float32 and pi.shape == (BATCH, VOCAB) and deferred.shape == (BATCH,)
    assert np.all(np.isfinite(pi)) and np.all(pi >= 0)
    np.testing.assert_allclose(pi.sum(-1), 1, atol=2e-6)
    for row in range(BATCH):
        k = take(knobs, row)
        expected, mass, margin = oracle(name, k, *(x[row].astype(np.float64) for x in d))
        if margin > 1e-5 or is_exact(name, d, k, row):
            np.testing.assert_allclose(pi[row], expected, atol=2e-6, err_msg=f"{name} {k}")
            np.testing.assert_allclose(deferred[row], mass, atol=2e-6)
    # No token comes from nowhere.
    assert np.all((pi == 0) | (d.q > 0) | (d.p > 0))


def test_rules_over_a_drafter_without_a_distribution():
    works = []
    for name in RULES:
        try:
            rules.check_without_distribution(name)
            works.append(name)
        except UserError as error:
            assert f"rule {name} needs the drafter's distribution" in str(error)
    assert set(works) == {
        "token_v2",
        "token_v3",
        "spec",
        "expert",
        "lossy",
        "lenient",
        "mixture",
        "typical",
        "topk_relaxed",
    }


def forced(name, d):
    """Rows [B] where an endpoint's alpha decides: not where it multiplies a distance of nothing."""
    distance = np.maximum(d.q - d.p, 0).sum(-1)
    return (distance > 1e-7) | (name not in ("opt", "optlog", "learned"))


def at(name, end):
    own = {k: v if RULES[name].knobs[k].static else np.full(BATCH, v) for k, v in end.items()}
    return rules.make(name, **own, **toy_head.knobs_of(RULES[name]))


@pytest.mark.parametrize("name", [n for n, row in RULES.items() if row.drafter_at is not None])
@given(d=batches())
def test_drafter_endpoint(name, d):
    pi, deferred = apply(at(name, RULES[name].drafter_at), d)
    np.testing.assert_array_equal(pi, d.q)
    if name not in ("drafter", "mixture"):
        np.testing.assert_array_equal(np.asarray(deferred)[forced(name, d)], 0)


@pytest.mark.parametrize("name", [n for n, row in RULES.items() if row.expert_at is not None])
@given(d=batches())
def test_expert_endpoint(name, d):
    pi, _ = apply(at(name, RULES[name].expert_at), d)
    rows = forced(name, d)
    np.testing.assert_allclose(pi[rows], d.p[rows], atol=2e-6)


@functools.cache
def fixed_batch(seed=0, vocab=VOCAB):
    """Random distributions [B, V], with zeros among q and p."""
    rng = np.random.default_rng(seed)
    q1, p1 = rng.dirichlet(np.full(vocab, 0.7), size=(2, BATCH))
    cut = [np.where(x >= np.sort(x)[:, [-4]], x, 0) for x in (q1, p1)]
    q, p = (x / x.sum(-1, keepdims=True) for x in cut)
    q[0] = p[0]
    return Distributions(*(x.astype(np.float32) for x in (q, p, q1, p1)))


def typical_knobs(name, count=BATCH):
    """Knobs [B] that spread over what a rule does."""
    row = RULES[name]
    knobs = toy_head.knobs_of(row)
    for key, knob in row.knobs.items():
        if knob.static:
            continue
        low, high = max(knob.low, -0.3), min(knob.high - 0.01, 1.7)
        knobs[key] = np.linspace(low, high, count).astype(np.float32)
    return knobs


@pytest.mark.parametrize("name", [n for n, row in RULES.items() if row.knobs])
def test_knobs_per_row_equal_knobs_for_all_and_nothing_recompiles(name):
    d, knobs = fixed_batch(), typical_knobs(name)
    pi, deferred = apply(rules.make(name, **knobs), d)
    apply(rules.make(name, **take(knobs, 0)), d)
    before = len(traces)  # compiled once for [B] and once for []
    for row in range(0, BATCH, 3):
        one, mass = apply(rules.make(name, **take(knobs, row)), d)
        np.testing.assert_array_equal(one[row], pi[row])
        np.testing.assert_array_equal(mass[row], deferred[row])
    assert len(traces) == before
    assert len(np.unique(np.asarray(pi), axis=0)) > 1


@pytest.mark.parametrize("name", RULES)
def test_positions_of_a_row_share_its_knobs(name):
    d, knobs = fixed_batch(), typical_knobs(name)
    stacked = Distributions(*(np.stack([x, x[::-1]], 1) for x in d))
    rule = rules.make(name, **knobs)
    pi = np.asarray(jax.jit(rules.target)(rule, *stacked))
    assert pi.shape == (BATCH, 2, VOCAB)
    np.testing.assert_allclose(pi[:, 0], apply(rule, d).pi, atol=1e-6)
    np.testing.assert_allclose(
        pi[:, 1], apply(rule, Distributions(*(x[::-1] for x in d))).pi, atol=1e-6
    )


@pytest.mark.parametrize("name", RULES)
def test_registry_says_what_a_rule_reads(name):
    d, other = fixed_batch(), fixed_batch(seed=1)
    rule = rules.make(name, **typical_knobs(name))
    pi, deferred = (np.asarray(x) for x in apply(rule, d))
    by_expert, _ = apply(rule, d._replace(q=other.q, q1=other.q1))
    assert rules.uses_q(rule) == (not np.array_equal(by_expert, pi))
    if RULES[name].sequential:
        rules.check_sequential(rule)
        asked = np.asarray(rules.defers_before_expert(rule, d.q1))
        assert 0 < asked.sum() < BATCH
        np.testing.assert_allclose(deferred, asked, atol=1e-6)
    else:
        with pytest.raises(UserError, match=f"{name} needs the expert.*takes chow, chowlog"):
            rules.check_sequential(rule)


@pytest.mark.parametrize("name", RULES)
def test_registry_says_which_rules_read_q1(name):
    """Another q1 changes the target or the deferral if and only if the rule's row says so."""
    rng, count = np.random.default_rng(5), 200
    *given, other = rng.dirichlet([0.4] * VOCAB, (5, count)).astype(np.float32)
    d, knobs = Distributions(*given), toy_head.knobs_of(RULES[name])
    if "alpha" in RULES[name].knobs:
        knobs["alpha"] = rng.uniform(0.05, 0.6, BATCH)
    rule = rules.make(name, **knobs)
    both = (apply_to_many(rule, x) for x in (d, d._replace(q1=other)))
    same = [np.array_equal(a, b, equal_nan=True) for a, b in zip(*both, strict=True)]
    assert RULES[name].reads_q1 == (not all(same))


@pytest.mark.parametrize("name", RULES)
def test_only_bild_ends_drafting(name):
    d, rule = fixed_batch(), rules.make(name, **typical_knobs(name))
    ends = np.asarray(rules.ends_draft(rule, d.q1))
    expected = np.zeros(BATCH, bool)
    if name == "bild":
        expected = d.q1.max(-1) < typical_knobs(name)["fallback"]
        assert 0 < expected.sum() < BATCH
        # The expert takes over there.
        np.testing.assert_allclose(apply(rule, d).pi[expected], d.p[expected], atol=1e-6)
    assert rules.can_end_draft(rule) == (name == "bild")
    np.testing.assert_array_equal(ends, expected)


# ---- what the rules mean ----


def test_disagreement_makes_opt_defer_less():
    even, sure = [0.5, 0.5, 0.0, 0.0], [0.75, 0.25, 0.0, 0.0]
    near, far = [0.5, 0.25, 0.25, 0.0], [0.0, 0.0, 0.5, 0.5]
    tables = ([even, even], [near, far], [even, even], [sure, sure])
    d = Distributions(*(np.float32(table) for table in tables))
    for name, alpha in (("opt", 0.5), ("optlog", 0.25)):
        # The distance is 1/4 in the first row and 1 in the second.
        np.testing.assert_array_equal(apply(rules.make(name, alpha=alpha), d).deferral, [1, 0])
        # A negative cost turns it round: disagreement is sought.
        confident = d._replace(q1=d.p1, p1=d.q1)
        deferred = apply(rules.make(name, alpha=-alpha), confident).deferral
        np.testing.assert_array_equal(deferred, [0, 1])


@pytest.mark.parametrize(
    "name", ["chow", "chowlog", "diff", "opt", "optlog", "learned", *TOKEN_RULES[:4]]
)
def test_a_larger_alpha_never_defers_more(name):
    d = fixed_batch()
    knobs = {"fallback": 0.0} if name == "bild" else toy_head.knobs_of(RULES[name])
    mass = [
        np.asarray(apply(rules.make(name, alpha=alpha, **knobs), d).deferral)
        for alpha in np.linspace(-1, 13, 15)
    ]
    assert np.all(np.diff(mass, axis=0) <= 1e-6)
    assert mass[0].max() > 0.9 and np.median(mass[-1]) == 0


@pytest.mark.parametrize("name", ["token_v3", "diff", "opt"])
def test_alpha_zero_is_not_lossless(name):
    d = fixed_batch(seed=3)
    far = rules.total_variation(apply(rules.make(name, alpha=0.0), d).pi, d.p)
    assert np.median(far) > 0.01


def test_per_token_rules_keep_a_better_token_alone():
    # The expert likes the first two tokens about as well: v3 keeps both, and not the third.
    q = p = np.array([[0.25, 0.25, 0.5]], np.float32)
    p1 = np.array([[0.5, 0.4375, 0.0625]], np.float32)
    pi = rules.target(rules.make("token_v3", alpha=0.25), q, p, q, p1)
    np.testing.assert_array_equal(pi, [[0.25 + 0.125, 0.25 + 0.125, 0.25]])


# ---- temperature 0 ----


@functools.cache
def greedy_batch(count=400):
    """q and p one-hot on the largest of q1 and p1, [B, V]."""
    rng = np.random.default_rng(5)
    q1, p1 = rng.dirichlet(np.ones(VOCAB), size=(2, count)).astype(np.float32)
    p1[::5] = q1[::5]
    q, p = (np.eye(VOCAB, dtype=np.float32)[x.argmax(-1)] for x in (q1, p1))
    return Distributions(q, p, q1, p1)


ALPHAS = (-0.5, -0.1, 0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_greedy_opt_diff_and_token_v1_are_one(alpha):
    d = greedy_batch()
    diff = apply_to_many(rules.make("diff", alpha=alpha), d).pi
    for name in ("opt", "token_v1"):
        np.testing.assert_array_equal(apply_to_many(rules.make(name, alpha=alpha), d).pi, diff)


@pytest.mark.parametrize("name", ["lossy", "lenient"])
def test_greedy_lossy_and_lenient_are_lossless(name):
    d = greedy_batch()
    for alpha in (0.0, 0.1, 0.5, 0.9, 0.999):
        np.testing.assert_array_equal(apply_to_many(rules.make(name, alpha=alpha), d).pi, d.p)


def test_greedy_lenience_is_token_v3():
    d = greedy_batch()
    some = False
    for lenience in (0.125, 0.25, 0.5, 0.75, 1.0):  # exact in binary, and so is 1 - l
        drafted = d.p1[np.arange(len(d.q)), d.q.argmax(-1)]
        accepted = drafted >= lenience * d.p1.max(-1)
        pi = apply_to_many(rules.make("token_v3", alpha=1 - lenience), d).pi
        np.testing.assert_array_equal(pi, np.where(accepted[:, None], d.q, d.p))
        some |= 0.1 < accepted.mean() < 0.9
    assert some


def test_greedy_mixture_stays_random():
    d = greedy_batch()
    pi = apply_to_many(rules.make("mixture", alpha=0.25), d).pi
    np.testing.assert_array_equal(pi, 0.75 * d.p + 0.25 * d.q)
    differ = np.any(d.q != d.p, -1)
    assert np.all((pi[differ] > 0).sum(-1) == 2) and differ.any()


# ---- sharded vocabulary ----


@pytest.mark.parametrize("name", RULES)
def test_sharded_target_equals_the_whole(name):
    d, rule = fixed_batch(), rules.make(name, **typical_knobs(name))
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("vocab",))
    shards = P(None, "vocab")
    sharded = jax.shard_map(
        functools.partial(rules.apply, vocab=Vocab("vocab")),
        mesh=mesh,
        in_specs=(P(), shards),
        out_specs=rules.Target(shards, P()),
    )
    found, whole = jax.jit(sharded)(rule, d), apply(rule, d)
    np.testing.assert_allclose(found.pi, whole.pi, atol=1e-6)
    np.testing.assert_allclose(found.deferral, whole.deferral, atol=1e-6)


# ---- errors ----


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("chew", {"alpha": 1}, r"rule 'chew' is unknown; choose one of: chow, .*, topk_relaxed"),
        ("chow", {}, r"rule chow needs alpha; its domain is any finite number"),
        ("chow", {"alpha": None}, r"rule chow needs alpha"),
        ("chow", {"alpha": math.nan}, r"rule chow: alpha=nan is outside its domain any finite"),
        ("opt", {"alpha": math.inf}, r"rule opt: alpha=inf is outside its domain"),
        ("opt", {"alpha": [0.5, math.nan]}, r"rule opt: alpha=nan is outside its domain"),
        ("lossy", {"alpha": 1.0}, r"rule lossy: alpha=1.0 is outside its domain \[0, 1\)"),
        ("lossy", {"alpha": 1 - 1e-12}, r"outside its domain \[0, 1\)"),  # 1 in float32
        ("lenient", {"alpha": -0.1}, r"rule lenient: alpha=-0.1 is outside its domain \[0, 1\)"),
        ("mixture", {"alpha": 1.5}, r"rule mixture: alpha=1.5 is outside its domain \[0, 1\]"),
        ("chow", {"alpha": 0, "beta": 1}, r"rule chow has no knob beta; its knobs: alpha"),
        ("spec", {"alpha": 0}, r"rule spec has no knob alpha; its knobs: none"),
        ("bild", {"alpha": 1, "fallback": -1}, r"fallback=-1 is outside its domain \[0, inf\)"),
        ("topk_relaxed", {"alpha": 0, "k": 0}, r"k=0 is outside its domain whole numbers in \[1,"),
        ("topk_relaxed", {"alpha": 0, "k": 2.5}, r"k=2.5 is outside its domain whole numbers"),
        ("topk_relaxed", {"alpha": 0, "k": [1, 2]}, r"rule topk_relaxed: k must be one number"),
        ("chow", {"alpha": np.zeros((2, 2))}, r"rule chow: alpha must be one number"),
    ],
)
def test_mistakes_are_one_line_errors(name, knobs, message):
    with pytest.raises(UserError, match=message) as error:
        rules.make(name, **knobs)
    assert "\n" not in str(error.value)


def test_unknown_rule_lists_every_known_one():
    with pytest.raises(UserError) as error:
        rules.make("nonsense")
    assert all(name in str(error.value) for name in RULES)


# ---- numbers that devices take for 0 ----

LEAST = np.finfo(np.float32).tiny
SUBNORMAL = [np.float32(1e-45), np.float32(1e-40), np.nextafter(LEAST, np.float32(0))]


def sprinkled(seed: int) -> Distributions:
    """Random distributions, some of whose probabilities are subnormal and some least."""
    rng = np.random.default_rng(seed)
    values = np.array([0, *SUBNORMAL, LEAST, 0.25, 1, 1], np.float32)

    def one():
        x = rng.choice(values, (BATCH, VOCAB))
        x[np.arange(BATCH), rng.integers(VOCAB, size=BATCH)] += 1
        return (x / x.sum(-1, keepdims=True)).astype(np.float32)

    made = Distributions(*(one() for _ in range(4)))
    assert any(np.any((x > 0) & (x < LEAST)) for x in made)
    return made


@pytest.mark.parametrize("name", RULES)
def test_subnormal_probabilities_count_as_zero_however_they_come(name):
    knobs = {k: 0.3 for k, knob in RULES[name].knobs.items() if not knob.static}
    for more in ({"k": 2}, {"k": 10**12}) if name == "topk_relaxed" else ({},):
        rule = rules.make(name, **toy_head.knobs_of(RULES[name]), **knobs, **more)
        for seed in range(5):
            d = sprinkled(seed)
            cleared = Distributions(*(np.where(x < LEAST, np.float32(0), x) for x in d))
            expected = np.asarray(apply(rule, cleared).pi)
            for given_as in (np.asarray, jnp.asarray):
                for run in (rules.apply, apply, lambda r, x: rules.Target(rules.target(r, *x), 0)):
                    pi = np.asarray(run(rule, Distributions(*map(given_as, d))).pi)
                    assert np.all(np.isfinite(pi)), (name, pi)
                    np.testing.assert_allclose(pi.sum(-1), 1, atol=2e-6)
                    np.testing.assert_allclose(pi, expected, atol=1e-7, rtol=1e-6)


def test_what_rules_and_heads_are_made_of_is_finite_at_subnormal_numbers():
    d = sprinkled(0)
    for given_as in (np.asarray, jnp.asarray):
        q1, p1 = given_as(d.q1), given_as(d.p1)
        assert np.all(np.isfinite(learned_head.features(q1, p1)))
        assert np.all(np.asarray(vocab.entropy(q1)) >= 0)
        if_chow = rules.make("chowlog", alpha=0.2)
        decided = rules.defers_before_expert(if_chow, q1)
        np.testing.assert_array_equal(decided, vocab.entropy(q1)[..., 0] > 0.2)


@pytest.mark.parametrize("k", [1, 2, VOCAB - 1, VOCAB, VOCAB + 1, 2**31 - 1, 2**31, 10**30])
@pytest.mark.parametrize("kind", [int, np.int64])
def test_topk_relaxed_takes_any_whole_number(k, kind):
    if kind is np.int64 and k > 2**63:
        return
    d = sprinkled(1)
    d = d._replace(p1=np.eye(VOCAB, dtype=np.float32)[:1] * 0.5 + 0.5 / VOCAB + 0 * d.p1)
    pi = np.asarray(apply(rules.make("topk_relaxed", alpha=2, k=kind(k)), d).pi)
    # All but the first token are tied in rank: one is the best alone, any more are all.
    best = np.arange(VOCAB) == 0
    kept = np.where(best | (k > 1), np.where(d.q < LEAST, 0, d.q), 0)
    np.testing.assert_allclose(pi, kept + d.p * (1 - kept.sum(-1, keepdims=True)), atol=1e-6)


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), jnp.float32(0.5), 0.5])
def test_knobs_of_any_kind_of_number(value):
    assert rules.make("opt", alpha=value).knobs["alpha"] == 0.5
    assert rules.make("opt", alpha=[value, 0]).knobs["alpha"].tolist() == [0.5, 0.0]


@pytest.mark.parametrize("value", [True, "0.5", None, 10**400, 1e39, [0.5, True]])
def test_knobs_that_are_no_numbers(value):
    with pytest.raises(UserError, match="rule opt"):
        rules.make("opt", alpha=value)
