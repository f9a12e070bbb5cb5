"""Keeps what XLA compiled between runs, in the user's cache folder."""

import os

from speccascade.workdir import user_cache


def enable() -> None:
    """Turns on JAX's persistent compilation cache, for every program however small.

    It lies in `$XDG_CACHE_HOME/speccascade/jax` (`~/.cache` by default). JAX's own variable,
    `JAX_COMPILATION_CACHE_DIR`, puts it elsewhere; a folder that cannot be made leaves it off.
    """
    import jax  # not at the top: `--help` should not wait for it

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        if (folder := user_cache.folder("jax")) is None:
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    # A sweep compiles dozens of programs of a tenth of a second; JAX's default keeps none of them.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
