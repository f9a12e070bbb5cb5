"""Paths that a user gives, in the one spelling that everything here understands.

Text, `pathlib.Path` and `etils.epath.Path` mean the same, and `~` is home in all of them. A bucket
is gs://, s3://, az:// or hf://, also where `pathlib` has made one slash of the two.
"""

import os
import re
from typing import Any

from speccascade.errors import UserError
from speccascade.inputs.field_types import show

BUCKETS = ("gs", "s3", "az", "hf")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):(//?)", re.IGNORECASE)


def plain(path: Any) -> str:
    """Returns a path, or the name of a model or pair, as text.

    Names such as shipped:NAME, package:NAME/FILE or a hub's owner/name stay as they are.

    Raises:
      UserError: it is no path, is empty, or lies in a kind of storage that is not known.
    """
    try:
        text = os.fspath(path)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise UserError(f"{show(path)} is no path; give it as text or pathlib.Path")
    if not text or "\0" in text:
        raise UserError(f"{text!r} is no path; name a file or a directory")
    if found := _SCHEME.match(text):
        scheme = found[1].lower()
        if scheme in BUCKETS:
            return f"{scheme}://{text[found.end() :].lstrip('/')}"
        if found[2] == "//":
            known = ", ".join(f"{name}://" for name in BUCKETS)
            raise UserError(f"{text}: nothing here reads {scheme}://; give a path or {known}")
    if not text.startswith("~"):
        return text
    home = os.path.expanduser(text)
    if home.startswith("~"):
        user = text.split("/")[0]
        raise UserError(f"{text}: {user} is nobody's home; write ./{user} for what is called so")
    return home


def is_bucket(path: str) -> bool:
    """Returns whether a path, as `plain` gives it, lies in a bucket."""
    return "://" in path


def on_disk(path: Any, what: str) -> str:
    """Returns `plain` of a path that must be on this machine.

    Raises:
      UserError: it lies in a bucket; the message calls it `what`.
    """
    text = plain(path)
    if is_bucket(text):
        raise UserError(f"{text}: {what} cannot be in a bucket; give a path on this machine")
    return text
