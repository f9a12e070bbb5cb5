"""Mistakes planted in the decode engine, each of which a check must catch.

Two checks: the law of whole sampled sequences, and the recomputation without caches. No compiled
program of the real engine may serve a mutant. So the first check decodes by a `Decoder` class of
its own, and the second without compiling.
"""

import dataclasses
import functools
import inspect
import types

import jax
import numpy as np
import pytest

from speccascade import randomness, sampling
from speccascade import rules as rules_lib
from speccascade.decode import (
    Decoder,
    ModelDrafter,
    decide,
    make_rows,
    state,
    step,
    trace,
)
from speccascade.decode.drafters import model
from tests.decode import path_law, reference, toys
from tests.decode.path_law import Setting

PARAMS = toys.tables(path_law.VOCAB, seed=3)


def edited(module: types.ModuleType, old: str, new: str) -> types.ModuleType:
    """Returns a copy of a module with a piece of its source, which must occur once, replaced."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{module.__name__} has changed: update this mutant's {old!r}"
    copy = types.ModuleType(module.__name__)
    exec(compile(source.replace(old, new), "mutant", "exec"), copy.__dict__)
    return copy


def fresh() -> type[Decoder]:
    """Returns a class of decoders that are equal to no others."""
    return type("Mutant", (Decoder,), {})


# ---- caught by the law of sequences ----


def check_law(verifier: str) -> None:
    decode = path_law.speculative(path_law.decoder(verifier, fresh()), PARAMS)
    path_law.check(decode, PARAMS, [Setting("mixture", {"alpha": 0.3})], draws=8000, batches=4)


def draws_colder(patch):
    def colder(weights, uniform, vocab):
        return sampling.draw(weights**1.3, uniform, vocab)

    patch(model, "draw", colder)


def bonus_from_p(patch):
    real = decide._target

    def target(rules, rule_index, draft, d, vocab):
        made = real(rules, rule_index, draft, d, vocab)
        return made._replace(pi=made.pi.at[:, -1].set(d.p[:, -1]))

    patch(decide, "_target", target)


def one_key_for_all_blocks(patch):
    real = step.uniforms_by_role
    patch(step, "uniforms_by_role", lambda keys, start, counts: real(keys, 0 * start, counts))


def noise_by_token_position(patch):
    def by_position(keys, start, counts):
        def noise(role, count):
            each = [randomness.uniforms(keys, start + i, role, 1) for i in range(count)]
            return jax.numpy.concatenate(each, axis=1)

        return {role: noise(role, count) for role, count in counts.items()}

    patch(step, "uniforms_by_role", by_position)


def ends_in_a_block_ignored(patch):
    real = state.advance

    def advance(table, start, tokens):
        states = real(table, start, tokens)
        inside = jax.numpy.arange(tokens.shape[1]) < tokens.shape[1] - 1
        return jax.numpy.where(inside & (states == state.STOP), 0, states)

    patch(state, "advance", advance)


def rejected_ends_obeyed(patch):
    old = "ends = (states == STOP) & (index < block.count[:, None])"
    patch(state, "commit", edited(state, old, "ends = states == STOP").commit)


LAW_MUTANTS = [
    ("token", draws_colder),
    ("block", bonus_from_p),
    ("token", one_key_for_all_blocks),
    ("block", noise_by_token_position),
    ("token", ends_in_a_block_ignored),
    ("token", rejected_ends_obeyed),
]


@pytest.mark.parametrize(("verifier", "plant"), LAW_MUTANTS)
def test_mutants_break_the_law(verifier, plant, monkeypatch):
    plant(monkeypatch.setattr)
    with pytest.raises(AssertionError, match="is not of its law"):
        check_law(verifier)


def test_unchanged_the_law_holds():
    check_law("block")


# ---- caught by the recomputation ----

VOCAB, BATCH, SIZE, ROOM = 4, 24, 2, 10
STOPS = np.zeros((1, VOCAB), np.int32)
STOPS[0, 1] = -1


@functools.cache
def case(bonus: bool):
    """Returns models' parameters, a rule, rows and what they must become."""
    table, rng = toys.Table(VOCAB), np.random.default_rng(0)
    rules = (rules_lib.make("mixture", alpha=0.5),) if bonus else (rules_lib.make("spec"),)
    rows = make_rows(
        [rng.choice([0, 2, 3], n).tolist() for n in rng.integers(1, 5, BATCH)],
        stop_table=STOPS,
        max_new_tokens=rng.integers(1, ROOM + 1, BATCH),
        prompt_slots=4,
        temperature=rng.choice([0.0, 0.7, 1.0], BATCH),
    )
    params = toys.tables(VOCAB, seed=2)
    params["expert"] = 0.5 * params["expert"] + params["drafter"]
    params["drafter"][:, 1] -= 1.0
    made = Decoder(table, ModelDrafter(table), SIZE, ROOM, "token", True)
    expected = reference.decode(made, params, rules, rows)
    after_full = [
        (a.active & (a.accepted == SIZE) & b.active).sum()
        for a, b in zip(expected.blocks, expected.blocks[1:], strict=False)
    ]
    assert sum(after_full) > 10, "not a case to catch these mistakes"
    return made, params, rules, rows, expected


def check_recomputation(bonus: bool, drafter=ModelDrafter) -> None:
    """Raises AssertionError unless a trace equals the recomputation, blocks and outcome."""
    made, params, rules, rows, expected = case(bonus)
    made = dataclasses.replace(made, drafter=drafter(made.expert))
    with jax.disable_jit():
        records = list(trace(made, params, rules, rows))
    reference.check_records(records, expected)
    reference.check(state.output(records[-1][0]), expected)


class ForgetsTheLast(ModelDrafter):
    """Its cache is one token short after full acceptance."""

    def _first(self, params, cache, request):
        here = request.position[:, None]
        logits, cache = self.model.apply(params, request.last[:, None], here, cache)
        return logits[:, 0], cache

    def draft(self, params, state, request, ends_draft, bonus):
        """Drafts as it should and drops the last draft token from its cache."""
        made, cache = super().draft(params, state, request, ends_draft, bonus)
        at = request.position + request.uniforms.shape[1]
        return made, cache.at[jax.numpy.arange(len(at)), at].set(VOCAB - 1)


def one_index_for_all_rows(patch):
    old = "position=state.position + count,"
    new = "position=jnp.full_like(count, jnp.max(state.position + count)),"
    patch(state, "commit", edited(state, old, new).commit)


def keys_by_place(patch):
    real = step.RowKeys
    patch(step, "RowKeys", lambda seed, ids: real(seed, jax.numpy.arange(len(ids))[::-1]))


def kept_after_the_end_counted(patch):
    old, new = "accepted=jnp.minimum(kept, emitted),", "accepted=kept,"
    patch(step, "_count", edited(step, old, new)._count)


def rejected_tail_counted(patch):
    old = "tested = jnp.minimum(jnp.minimum(kept + 1, draft.length), emitted)"
    patch(step, "_count", edited(step, old, "tested = draft.length")._count)


@pytest.mark.parametrize("bonus", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_drafter_cache_one_token_short_is_caught(bonus):
    with pytest.raises(AssertionError):
        check_recomputation(bonus, ForgetsTheLast)


RECOMPUTATION_MUTANTS = [
    one_index_for_all_rows,
    keys_by_place,
    kept_after_the_end_counted,
    rejected_tail_counted,
]


@pytest.mark.parametrize("plant", RECOMPUTATION_MUTANTS)
def test_mutants_differ_from_the_recomputation(plant, monkeypatch):
    plant(monkeypatch.setattr)
    with pytest.raises(AssertionError):
        check_recomputation(bonus=True)


@pytest.mark.parametrize("bonus", [False, True])
def test_unchanged_the_recomputation_agrees(bonus):
    check_recomputation(bonus)
