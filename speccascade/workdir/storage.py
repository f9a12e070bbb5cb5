"""Buckets and other storage behind a URL."""

import contextlib
from collections.abc import Iterator

from speccascade.errors import UserError


@contextlib.contextmanager
def storage(name: str) -> Iterator[None]:
    """Turns what is raised for want of a storage's client package into one line."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"{name} needs a package that is not installed: {error}") from error
