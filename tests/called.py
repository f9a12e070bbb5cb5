"""A script's `main` in this process, where a process of its own would import JAX anew."""

import pathlib
import runpy
import sys
from collections.abc import Callable

import pytest
from absl import flags

from speccascade.runtime import app

ROOT = pathlib.Path(__file__).parents[1]


def call(script: str, *arguments: str) -> None:
    """Runs a script of the repository with flags.

    Raises:
      UserError: what it refuses; `app.run` makes one line of it.
    """
    own = flags.FLAGS.__dict__
    kept = dict(own)
    own.clear()
    own.update(flags.FlagValues().__dict__)  # every script defines its flags as if it were alone
    try:
        with pytest.MonkeyPatch.context() as patch:
            taken: list[Callable] = []
            patch.setattr(app, "run", lambda main, **_: taken.append(main))
            patch.setattr(sys, "argv", [script, *arguments])  # read by the flag of a config
            runpy.run_path(str(ROOT / script), run_name="__main__")
            (main,) = taken  # or it would not be `app.run` that its commands go through
            main(app._parse(list(sys.argv)))
    finally:
        own.clear()
        own.update(kept)
