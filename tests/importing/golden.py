"""Golden logits of `transformers`: how the scripts that make them store them."""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np


def store(
    description: str,
    families: ModuleType,
    names: Iterable[str],
    make: Callable[[str], Any],
    logits: Callable[[Any], np.ndarray],
) -> None:
    """Writes the configs and the logits of reference models to the folder that --out names.

    Args:
      description: of the script.
      families: has the names of the two files, `GOLDEN_CONFIGS` and `GOLDEN_LOGITS`.
      names: the models.
      make: from a name to the reference's model.
      logits: from the model to what it scores.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="directory of the two files")
    out = parser.parse_args().out
    configs, found = {}, {}
    for name in names:
        model = make(name)
        with tempfile.TemporaryDirectory() as directory:
            model.save_pretrained(directory)
            configs[name] = json.loads((Path(directory) / "config.json").read_text())
        found[name] = logits(model)
    (out / families.GOLDEN_CONFIGS.name).write_text(json.dumps(configs, indent=1) + "\n")
    np.savez_compressed(out / families.GOLDEN_LOGITS.name, **found)
