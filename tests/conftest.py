"""Settings of every test: eight fake devices, the same hypothesis examples, programs let go."""

import os

import hypothesis
import jax
import pytest

from speccascade.pairs import kept_hashes

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


@pytest.fixture(scope="session", autouse=True)
def _hashes_of_their_own(tmp_path_factory):
    """Keeps hashes of tests' pairs out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_hashes, "folder", lambda: folder)
        yield
