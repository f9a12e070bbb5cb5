"""JSON files that are either whole or absent, on a disk or in a bucket."""

import json
from typing import Any

from etils import epath

from speccascade.errors import UserError
from speccascade.inputs import text_files


def write_json(path: str, value: Any) -> None:
    """Writes a file that is either whole or absent."""
    partial = epath.Path(path + ".partial")
    partial.write_text(json.dumps(value, indent=1, sort_keys=True))
    partial.replace(path)


def read_json(path: str) -> Any:
    if not epath.Path(path).exists():
        raise UserError(f"{path} is missing; give the workdir of a trained model")
    try:
        return text_files.read_json(path)
    except UserError as error:
        raise UserError(f"{error}: it is damaged; restore it or train in a new workdir") from None
