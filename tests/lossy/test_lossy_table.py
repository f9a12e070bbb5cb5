"""The table of exact laws: its parts against other enumerations."""

import jax
import numpy as np
import pytest

from speccascade import rules
from speccascade.errors import UserError
from speccascade.lossy import laws, table
from tests import enumeration

PAIR = table.pairs(1, 1.0)[0]


def test_the_experts_law_is_that_of_the_tests():
    for eos in (None, enumeration.EOS):
        found = laws.expert_law(PAIR.p, 3, eos)
        assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, enumeration.target_law(PAIR.p[None], 3)[0], atol=1e-12)


def test_tokens_of_a_lossless_block_are_those_of_the_enumeration():
    lossless = rules.make("cactus", delta=0)
    first = laws.kernel_law(lossless, PAIR, table.SIZE, 1)[1]
    np.testing.assert_allclose(table.tokens_per_call(PAIR.q, PAIR.p), first, atol=1e-9)


@pytest.mark.parametrize("name", table.RIVALS)
def test_a_rival_is_the_expert_at_its_least_strength(name):
    family, strengths = table.RIVALS[name]
    stacked = laws.Tables(*(x[None] for x in PAIR))
    drafters, pi = family(strengths[[0, 50]], stacked)
    np.testing.assert_allclose(pi[0, 0], PAIR.p, atol=1e-9)
    assert np.abs(pi[1, 0] - PAIR.p).max() > 0.05
    np.testing.assert_allclose(pi.sum(-1), 1, atol=1e-9)
    assert len(drafters) >= 1
    if name != "truncated expert (min-p)":
        with jax.enable_x64(True):
            rule = jax.tree.map(np.float64, rules.make(name, alpha=strengths[50]))
            np.testing.assert_allclose(pi[1, 0], jax.jit(rules.target)(rule, *PAIR), atol=1e-6)


def test_a_modes_divergence_is_that_of_its_first_token():
    assert table.divergence(rules.make("cactus", delta=0), [PAIR]) == pytest.approx(0, abs=1e-9)
    far = table.divergence(rules.make("cactus", delta=0.5), [PAIR])
    law = laws.kernel_law(rules.make("cactus", delta=0.5), PAIR, 1, 2)[0].reshape(4, 4).sum(1)
    assert far == pytest.approx(float((law * np.log(law / PAIR.p[0])).sum())) and far > 0


def test_a_table_needs_a_pair():
    with pytest.raises(UserError, match="pairs=0 must be at least 1"):
        table.table(0)
