"""Self-contained web pages: a template, a style and a script, no external file, no framework."""

import base64
import hashlib
import importlib.resources
import string


def fill(package: str, title: str, **parts: str) -> str:
    """Returns the page that a package's `page.html`, `page.css` and `page.js` make.

    Only that script may run in it, whatever a model writes.

    Args:
      package: where the three files lie; those called `base` of this one stand around its body and
        before its style and script.
      title: of the page, as HTML.
      **parts: what the body names, as HTML.
    """
    script = _part(__name__, "base.js") + _part(package, "page.js")
    return string.Template(_part(__name__, "base.html")).substitute(
        title=title,
        body=string.Template(_part(package, "page.html")).substitute(parts),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=_part(__name__, "base.css") + _part(package, "page.css"),
        script=script,
    )


def _part(package: str, name: str) -> str:
    return (importlib.resources.files(package) / name).read_text(encoding="utf-8")
