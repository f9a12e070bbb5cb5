"""Settings of every test: eight fake devices, the same hypothesis examples, programs let go."""

import os

import hypothesis
import jax
import pytest

# For meshes of two axes. Set in this process alone: scripts that tests
# start see the machine as it is.
jax.config.update("jax_num_cpu_devices", 8)

hypothesis.settings.register_profile(
    "repeatable", deadline=None, derandomize=True, database=None, max_examples=20
)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config):
    """Has quick tests compiled fast: they run once. Proofs run what users run."""
    if config.option.markexpr == "not slow":
        jax.config.update("jax_disable_most_optimizations", True)
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # processes that tests start, the same


@pytest.fixture(scope="module", autouse=True)
def _let_go_of_programs():
    """Drops what the tests of a file compiled.

    Linux gives a process 65,530 mappings of memory, a compiled program takes a hundred or more,
    and XLA crashes where it gets none.
    """
    yield
    jax.clear_caches()
