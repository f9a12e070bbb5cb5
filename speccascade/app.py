"""Runs a script's `main` under absl and turns a user's mistake into one line."""

import logging
import sys
from collections.abc import Callable, Sequence

from absl import app

from speccascade import compilation_cache
from speccascade.errors import UserError


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Parses absl flags and calls `main(argv)`, with what XLA compiled kept between runs.

    A `UserError` is printed as one line on standard error and ends the program with exit code 2;
    every other exception is a defect and keeps its traceback.
    """

    def guarded(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            print(f"error: unexpected argument {argv[1]!r}; see --help", file=sys.stderr)
            sys.exit(2)
        # Orbax reports every save at INFO, which would tear the progress bars apart.
        logging.getLogger().setLevel(logging.WARNING)
        compilation_cache.enable()
        try:
            main(argv)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    app.run(guarded)
