"""Self-contained web pages: a template, a style and a script, no external file, no framework."""

import base64
import hashlib
import importlib.resources
import string


def fill(package: str, **parts: str) -> str:
    """Returns the page that a package's `page.html`, `page.css` and `page.js` make.

    Only that script may run in it, whatever a model writes.

    Args:
      package: where the three files lie; `base.css` and `base.js` of this one stand before its own.
      **parts: what the template names beside them, as HTML.
    """
    script = _part(__name__, "base.js") + _part(package, "page.js")
    return string.Template(_part(package, "page.html")).substitute(
        parts,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=_part(__name__, "base.css") + _part(package, "page.css"),
        script=script,
    )


def _part(package: str, name: str) -> str:
    return (importlib.resources.files(package) / name).read_text(encoding="utf-8")
