"""Standard output whose reader may leave before its end, as `head` does."""

import contextlib
import os
import select
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def may_go_unread() -> Iterator[None]:
    """Ends the program without a traceback, exit code 1, once nobody reads its standard output.

    A broken connection to somewhere else is raised as it is.
    """
    ended: SystemExit | BrokenPipeError | None = None
    try:
        yield
    except (SystemExit, BrokenPipeError) as error:
        ended = error
    try:
        sys.stdout.flush()
    except BrokenPipeError as error:
        ended = error
    if isinstance(ended, BrokenPipeError) and _is_unread():
        # Python flushes once more at its end, which would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if ended is not None:
        raise ended


def _is_unread() -> bool:
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
