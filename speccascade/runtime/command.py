"""`speccascade NAME --flags` and `python -m speccascade NAME --flags`: the scripts, by name.

From a checkout they are `scripts/NAME.py`; a wheel has them and the configs inside the package.
"""

import ast
import pathlib
import runpy
import sys

from speccascade.inputs import text_files
from speccascade.runtime import output

_PACKAGE = pathlib.Path(__file__).parents[1]


def folder(inside: str, beside: str) -> pathlib.Path:
    """Returns where files are that a wheel has inside the package and a checkout beside it."""
    installed = _PACKAGE / inside
    return installed if installed.is_dir() else _PACKAGE.parent / beside


def main() -> None:
    """Runs the script that the first argument names, or lists them."""
    scripts = {
        path.stem: path
        for path in sorted(folder("commands", "scripts").glob("*.py"))
        if path.stem != "__init__"
    }
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in scripts:
        sys.argv = [str(scripts[name]), *sys.argv[2:]]
        runpy.run_path(sys.argv[0], run_name="__main__")
        return
    with output.may_go_unread():
        print("usage: speccascade COMMAND [--help] [--FLAG=VALUE ...]\n")
        for command, path in scripts.items():
            told = ast.get_docstring(ast.parse(text_files.read(path))) or ""
            line = told.split("\n")[0].partition(": `")[0].rstrip(".:")
            print(f"  {command:18}{line}")
        if name not in ("--help", "-h", "help"):
            print(f"error: there is no command {name!r}", file=sys.stderr)
            sys.exit(2)
