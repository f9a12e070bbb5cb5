"""Settings of every test: fake devices, the same hypothesis examples, programs let go, an end."""

import gc
import os
import shutil
import tempfile
import time

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

CACHE = {  # JAX's settings, and the environment's, which it reads when it is imported
    "jax_compilation_cache_dir": "JAX_COMPILATION_CACHE_DIR",
    "jax_persistent_cache_min_compile_time_secs": "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
    "jax_persistent_cache_min_entry_size_bytes": "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES",
}
_BEGUN = time.monotonic()
_made_here = []
ROOM = 500_000_000  # bytes of kept programs; a run leaves 45 million


def pytest_addoption(parser):
    """Adds --seconds."""
    parser.addoption(
        "--seconds",
        type=float,
        default=float("inf"),
        help="tests that have not begun so many seconds after the start are skipped, and say so",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skips what has no time left, before its fixtures are made."""
    if time.monotonic() > _BEGUN + item.config.option.seconds:
        pytest.skip("no time was left (--seconds)")


def pytest_configure(config):
    """Has quick tests compiled fast and once; proofs run what users run, each compiled anew.

    The quick tests share what they compile, in all processes of a run and with the next runs, in
    pytest's cache: `--cache-clear` empties it, and `-p no:cacheprovider` has a folder that starts
    empty and goes with the run.
    """
    if config.option.markexpr != "not slow":
        return
    jax.config.update("jax_disable_most_optimizations", True)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # processes that tests start, the same
    if not hasattr(config, "workerinput"):  # xdist's workers are given the folder
        os.environ |= dict(zip(CACHE.values(), (_programs(config), "0", "-1"), strict=True))
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _programs(config):
    """Returns the folder of compiled programs; one that has grown too large starts anew."""
    if not hasattr(config, "cache"):
        _made_here.append(tempfile.mkdtemp(prefix="speccascade-programs-"))
        return _made_here[0]
    folder = config.cache.mkdir("programs")
    if sum(entry.stat().st_size for entry in os.scandir(folder)) > ROOM:
        shutil.rmtree(folder)
        folder.mkdir()
    return str(folder)


def pytest_collection_finish():
    """Spares the garbage collector what was imported, which is never garbage, and most looks."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)


def pytest_unconfigure():
    """Removes the run's own folder of compiled programs."""
    while _made_here:
        shutil.rmtree(_made_here.pop(), ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _let_go_of_programs():
    """Drops what was compiled, after a file that left little room for more.

    Linux gives a process 65,530 mappings of memory, a compiled program takes a hundred or more,
    and XLA crashes where it gets none.
    """
    yield
    if _mappings() > 30_000:
        jax.clear_caches()


def _mappings() -> int:
    """Returns how many mappings of memory this process has; all of them where none can tell."""
    try:
        with open("/proc/self/maps", "rb") as maps:
            return sum(1 for _ in maps)
    except OSError:
        return 65_530


@pytest.fixture(scope="session", autouse=True)
def _hashes_of_their_own(tmp_path_factory):
    """Keeps hashes of tests' pairs out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_hashes, "folder", lambda: folder)
        yield
