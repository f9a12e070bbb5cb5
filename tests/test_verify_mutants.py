"""Mistakes planted in the verifier, each of which a check must catch."""

import inspect
import types

import jax.numpy as jnp
import pytest

from speccascade import verify
from tests import enumeration, toy_settings
from tests.verify_checks import check_realises, check_sequences, check_support


def mutant(*edits) -> types.ModuleType:
    """Returns a copy of `verify` with pieces of its source replaced; each must occur once."""
    source = inspect.getsource(verify)
    for old, new in edits:
        assert source.count(old) == 1, f"verify.py has changed: update this mutant's {old!r}"
        source = source.replace(old, new)
    module = types.ModuleType("mutant")
    exec(compile(source, "mutant", "exec"), module.__dict__)
    return module


def law_of(module):
    def law(draft, q, pi, p, length, method):
        del p
        return module.law(draft, q, pi, length=length, method=method)

    return law


def law_with_p(choose):
    """A law whose next token is by p in place of pi wherever `choose(is_end)`."""

    def law(draft, q, pi, p, length, method):
        module = mutant()
        real = module._after

        def after(q_i, pi_i, weight_i, is_end, *vocab):
            wrong = choose(is_end)[..., None]
            return real(q_i, jnp.where(wrong, p, pi_i), weight_i, is_end, *vocab)

        module._after = after
        return module.law(draft, q, pi, length=length, method=method)

    return law


def law_at_another_temperature(draft, q, pi, p, length, method):
    del p
    squares = q * q
    total = squares.sum(-1, keepdims=True)
    colder = jnp.where(total > 0, squares / jnp.where(total > 0, total, 1.0), 0.0)
    return verify.law(draft, colder, pi, length=length, method=method)


UNDRAFTED = [
    ("drafted = jnp.arange(size) < length[:, None]", "drafted = jnp.ones((batch, size), bool)"),
    ("at == block.length[:, None]", "at == size"),
    ("return jnp.where(at <= block.length[:, None], scores, 0.0)", "return scores"),
]
LAW_MUTANTS = {
    "residual from p": law_with_p(lambda is_end: ~is_end),
    "bonus token from p": law_with_p(lambda is_end: is_end),
    "undrafted tokens accepted": law_of(mutant(*UNDRAFTED)),
    "q at another temperature": law_at_another_temperature,
    "bonus only after a full block": law_of(
        mutant(("is_end = jnp.arange(size + 1) == block.length[:, None]",
                "is_end = (jnp.arange(size + 1) == size) & (block.length[:, None] >= 0)"))
    ),
}  # fmt: skip
BLOCK_LAW_MUTANTS = {
    "weights above one": law_of(mutant(("sums - jax.lax.cummax(sums, axis=1)", "sums"))),
    "residual without its weight": law_of(mutant(("weight_i[..., None] * pi_i", "pi_i"))),
    "scores without their weight": law_of(
        mutant(("block.weight[:, 1:size, None] * pi[:, 1:size]", "pi[:, 1:size]"))
    ),
}
VERIFY_MUTANTS = {
    ("token", "ties accepted"): (
        check_support,
        mutant(("uniforms.accept * block.q_at < block.pi_at",
                "uniforms.accept * block.q_at <= block.pi_at")),
    ),
    ("block", "ties accepted"): (
        check_support,
        mutant(("uniforms.accept < _block_scores", "uniforms.accept <= _block_scores")),
    ),
    ("token", "undrafted tokens accepted"): (check_support, mutant(*UNDRAFTED)),
    ("block", "undrafted tokens accepted"): (check_support, mutant(*UNDRAFTED)),
    ("token", "tokens after a rejection counted"): (
        check_realises, mutant(("jnp.cumprod(kept.astype(jnp.int32), axis=1)", "kept")),
    ),
    ("block", "first in place of last"): (
        check_realises,
        mutant(("jnp.max(jnp.where(kept, jnp.arange(1, size + 1), 0), axis=1)",
                "jnp.where(kept.any(1), jnp.argmax(kept, 1) + 1, 0)")),
    ),
    ("token", "bonus only after a full block"): (
        check_realises, mutant(("num_accepted == block.length,", "num_accepted == size,")),
    ),
    ("block", "bonus only after a full block"): (
        check_realises, mutant(("num_accepted == block.length,", "num_accepted == size,")),
    ),
    ("block", "weight of the wrong position"): (
        check_realises,
        mutant(("at(block.weight, num_accepted)", "at(block.weight, 0 * num_accepted)")),
    ),
}  # fmt: skip


def caught_by_sequences(law, method) -> bool:
    settings = toy_settings.make_settings(4, 1, 2, ragged=True)
    try:
        check_sequences(settings, enumeration.block_laws(settings, 2, method, law), limit=3)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("method", verify.METHODS)
@pytest.mark.parametrize("name", LAW_MUTANTS)
def test_mutants_of_the_law_are_caught(name, method):
    assert caught_by_sequences(LAW_MUTANTS[name], method)


@pytest.mark.parametrize("name", BLOCK_LAW_MUTANTS)
def test_mutants_of_the_block_law_are_caught(name):
    assert caught_by_sequences(BLOCK_LAW_MUTANTS[name], "block")


def test_an_unchanged_copy_passes():
    assert not caught_by_sequences(law_of(mutant()), "block")
    check_support(mutant(), "block")


@pytest.mark.parametrize(("method", "name"), VERIFY_MUTANTS)
def test_mutants_of_verify_are_caught(method, name):
    check, module = VERIFY_MUTANTS[method, name]
    with pytest.raises(AssertionError):
        check(module, method)
