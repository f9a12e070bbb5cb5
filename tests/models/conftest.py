"""Logits are compared to 2e-5 here: programs are compiled as users run them."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def _optimised():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
