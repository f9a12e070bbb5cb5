"""The jitted, sampled decode follows the law of sequences that each kernel's judgement implies."""

import functools

import jax
import numpy as np
import pytest

from speccascade import decode, kernels, rules
from speccascade.decode import Decoder, ModelDrafter, make_rows, stop_table
from speccascade.errors import UserError
from speccascade.lossy import laws
from tests.decode import path_law, toys

VOCAB, SIZE, LIMIT, EOS = 3, 3, 5, 1
TABLE = toys.Table(VOCAB)
PARAMS = toys.tables(VOCAB, seed=3)
PARAMS["drafter"] = 0.5 * (PARAMS["expert"] + PARAMS["drafter"])
STOPS = stop_table(VOCAB, [EOS])
# Temperature, kernel and knobs: two of those that remember, with and without something to remember.
SETTINGS = [
    (1.0, "medusa_typical", {"epsilon": 0.3, "delta": 0.6}),
    (0.7, "vllm_typical", {"epsilon": 0.3, "delta": 0.6}),
    (1.0, "sglang_threshold", {"threshold_single": 0.5, "threshold_acc": 0.8}),
    (1.0, "trtllm_relaxed", {"delta": 0.5, "k": 2, "begin": 0, "end": 2}),
    (1.0, "vllm_relaxed", {"ratio": 0.3, "k": 2, "begin": 0, "end": 2}),
    (1.0, "fly", {"theta": 0.5, "window": 2}),
    (1.0, "asd", {"budget": 1.5, "per_value": 1.0, "most": 1.0}),
    (1.0, "asd", {"budget": 0.6, "per_value": 0.5, "most": 2.0}),
    (1.0, "cactus", {"delta": 0.3}),
    (0.7, "cactus", {"delta": 0.0}),
]
REMEMBERING = [s for s in SETTINGS if s[1] in ("asd", "trtllm_relaxed", "vllm_relaxed")]


# Those that have a twin: no span of TensorRT-LLM's ends within a block, and ASD may keep all.
TWINS = [
    *(s for s in SETTINGS if s[1] not in ("asd", "trtllm_relaxed", "fly")),
    (1.0, "trtllm_relaxed", {"delta": 0.5, "k": 2, "begin": 0, "end": EOS}),
    (1.0, "asd", {"budget": 0.9, "per_value": 0.4, "most": float(SIZE)}),
    (1.0, "fly", {"theta": 0.0, "window": SIZE}),
]


def decoder(kind=Decoder, verifier=kernels.VERIFIER) -> Decoder:
    size = SIZE if verifier == kernels.VERIFIER else 1
    return kind(TABLE, ModelDrafter(TABLE), size, LIMIT, verifier)


def batch(settings, draws):
    """Returns rules with knobs [B], and rows, `draws` of each setting."""
    per_row = [s for s in settings for _ in range(draws)]
    names = list(dict.fromkeys(name for _, name, _ in per_row))
    made = []
    for name in names:
        own = next(knobs for _, other, knobs in settings if other == name)
        values = [knobs if other == name else own for _, other, knobs in per_row]
        static = {key for key, knob in kernels.KERNELS[name].knobs.items() if knob.static}
        columns = {k: own[k] if k in static else [v[k] for v in values] for k in own}
        made.append(rules.make(name, **columns))
    rows = make_rows(
        [[0]] * len(per_row),
        stop_table=STOPS,
        max_new_tokens=LIMIT,
        prompt_slots=1,
        temperature=[temperature for temperature, _, _ in per_row],
        rule_index=[names.index(name) for _, name, _ in per_row],
        seed=5,
    )
    return tuple(made), rows


def tables(temperature):
    q1, p1, q, p = (
        path_law.softmax(PARAMS[role].astype(float) / t)
        for t in (1.0, temperature)
        for role in ("drafter", "expert")
    )
    return laws.Tables(q, p, q1, p1)


@functools.cache
def exact(index):
    temperature, name, knobs = [*SETTINGS, *TWINS][index]
    return laws.kernel_law(rules.make(name, **knobs), tables(temperature), SIZE, LIMIT, EOS)[0]


def of_blocks(setting):
    return exact([*SETTINGS, *TWINS].index(setting))


def check(settings, draws, batches, kind=Decoder, verifier=kernels.VERIFIER, law=of_blocks):
    """Raises AssertionError where sequences are not of the law of their setting."""
    made, rows = batch(settings, draws)
    counts = np.zeros((len(settings), VOCAB**LIMIT), int)
    powers = VOCAB ** np.arange(LIMIT)[::-1]
    for number in range(batches):
        ids = (np.arange(len(rows.prompt)) + number * len(rows.prompt)).astype(np.int32)
        loop = decoder(kind, verifier)
        out = decode.generate(loop, PARAMS, made, rows._replace(example_id=ids))
        own = np.arange(LIMIT) < np.asarray(out.num_tokens)[:, None]
        found = np.where(own, out.tokens[:, :LIMIT], EOS) @ powers
        for s, numbers in enumerate(found.reshape(len(settings), draws)):
            counts[s] += np.bincount(numbers, minlength=VOCAB**LIMIT)
        if verifier != kernels.VERIFIER:
            assert (np.asarray(out.stats.expert_calls) == out.num_tokens).all()
    for setting, own in zip(settings, counts, strict=True):
        expected = law(setting)
        np.testing.assert_allclose(expected.sum(), 1, atol=1e-9)
        assert path_law.p_value(own, expected) > path_law.ALARM, f"{setting} is not of its law"


def test_every_kernel_follows_its_law():
    check(SETTINGS, draws=500, batches=10)


def test_what_was_drafted_before_changes_what_follows():
    """The models see two tokens, and so would any target of theirs: laws that differ by the token
    before those are of no such target."""

    def spread(law):
        after = law.reshape((VOCAB,) * LIMIT).sum(4)[np.ix_([0, 2], [0, 2], [0, 2])]
        after = after[:, (after.sum(3) > 1e-6).all(0)]  # what both can be followed by
        after = after / after.sum(2, keepdims=True)
        return np.abs(after[0] - after[1]).max()

    expert = laws.expert_law(path_law.softmax(PARAMS["expert"].astype(float)), LIMIT, EOS)
    assert spread(expert) < 1e-9
    # Those that go on with the expert's best token leave too few sequences to compare.
    drawing = ("sglang_threshold", "fly", "cactus")
    *found, lossless = [spread(exact(i)) for i, s in enumerate(SETTINGS) if s[1] in drawing]
    assert min(found) > 0.05 and lossless < 1e-9


# ---- direct twins: the same law, an expert pass a token ----


def without_ends(setting):
    """The law where no token is a bonus: that of a target, what becomes of a position's drafts."""
    temperature, name, knobs = setting
    own = tables(temperature)
    pi = np.zeros_like(own.p)
    for token in range(VOCAB):
        ones = np.ones(len(pi), np.int32)
        p, p1 = (np.stack([x] * 2, axis=1) for x in (own.p, own.p1))
        block = kernels.Block(token * ones[:, None], ones, own.q[:, None], p, p1)
        made = rules.knobs_of(rules.make(name, **knobs), 2)
        kept, after, _ = kernels.law(kernels.KERNELS[name], made, block, np.zeros(len(pi)))
        drafted = own.q[:, token, None]
        pi += drafted * (np.asarray(kept)[:, :1] * np.asarray(after)[:, 0])
        pi[:, token] += own.q[:, token] * np.asarray(kept)[:, 1]
    return laws.expert_law(pi / pi.sum(-1, keepdims=True), LIMIT, EOS)


def test_a_twin_is_of_the_law_of_the_modes_blocks():
    check(TWINS, draws=400, batches=5, verifier=kernels.Twin(SIZE))


@pytest.mark.slow
def test_a_twin_without_ends_is_of_the_law_of_a_target():
    few = [s for s in TWINS if s[1] not in ("asd", "trtllm_relaxed", "fly")]
    check(few, draws=1000, batches=5, verifier=kernels.Twin(None), law=without_ends)


@pytest.mark.slow
def test_a_twin_of_blocks_of_another_length_is_caught():
    with pytest.raises(AssertionError, match="is not of its law"):
        check(TWINS, draws=1500, batches=5, verifier=kernels.Twin(SIZE - 1))
    with pytest.raises(AssertionError, match="is not of its law"):
        check(TWINS[:1], draws=1500, batches=5, verifier=kernels.Twin(None))


# ---- mistakes, each of which the check catches ----


def fresh() -> type[Decoder]:
    """Returns a class of decoders that are equal to no others: nothing compiled serves it."""
    return type("Mutant", (Decoder,), {})


def forgets(patch):
    real = kernels.verify

    def verify(kernel, knobs, block, carry, *rest):
        return real(kernel, knobs, block, carry, *rest)[0], carry

    patch(decode.decide.kernels, "verify", verify)


def never_begins(patch):
    patch(decode.step, "begun", lambda rules, rows, carry, count: carry)


def begins_every_block(patch):
    real = decode.step.begun
    patch(decode.step, "begun", lambda *args: real(*args[:-1], 0 * args[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("mistake", [forgets, never_begins, begins_every_block])
def test_a_loop_that_loses_the_number_is_caught(mistake, monkeypatch):
    mistake(monkeypatch.setattr)
    with pytest.raises(AssertionError, match="is not of its law"):
        check(REMEMBERING, draws=1500, batches=2, kind=fresh())


# ---- rows that are refilled ----


def test_a_row_that_is_refilled_begins_with_nothing_spent():
    made, rows = batch([s for s in SETTINGS if s[1] == "asd"], draws=9)
    whole = jax.device_get(decode.generate(decoder(), PARAMS, made, rows))
    order = np.random.default_rng(0).permutation(len(rows.prompt))

    def make(indices):
        index = order[np.asarray(indices)]
        taken = jax.tree.map(lambda x: np.asarray(x)[index], (made, rows._replace(stop_table=())))
        return taken[0], taken[1]._replace(stop_table=STOPS)

    found = {}
    for part in decode.stream(decoder(), PARAMS, make, len(order), 4):
        found |= {int(order[a.index]): a.output for a in part}
    assert len(found) == len(order)
    for i, own in found.items():
        n = int(whole.num_tokens[i])
        assert own.tokens[:n].tolist() == whole.tokens[i, :n].tolist() and own.num_tokens == n


def test_rules_and_kernels_do_not_mix():
    made, rows = batch(SETTINGS[:1], 2)
    spec = (rules.make("spec"),)
    with pytest.raises(UserError, match="rule spec does not go with verifier 'kernel'"):
        decode.generate(decoder(), PARAMS, spec, rows)
    token = Decoder(TABLE, ModelDrafter(TABLE), SIZE, LIMIT, "token")
    with pytest.raises(UserError, match="rule medusa_typical does not go with verifier 'token'"):
        decode.generate(token, PARAMS, made, rows)


def test_a_program_without_kernels_carries_nothing():
    spec, rows = (rules.make("spec"),), batch(SETTINGS[:1], 2)[1]
    token = Decoder(TABLE, ModelDrafter(TABLE), SIZE, LIMIT, "token")
    shapes = jax.eval_shape(lambda rows: decode.loop.prefill(token, PARAMS, rows), rows)
    assert shapes.carry == () and token.carry_shape is None and spec
