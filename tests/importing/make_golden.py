"""Makes the golden logits of the decoder-only families with `transformers` and torch.

PYTHONPATH=. python tests/importing/make_golden.py --out=tests/importing
"""

import pathlib
import tempfile

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

from tests.importing import decoder_only_families as families
from tests.importing import golden


def reference(family: str):
    """Returns the reference's model of a family, in float32, with the weights of `families`."""
    architecture, arguments = families.FAMILIES[family]
    model_class = getattr(transformers, architecture)
    # Eager attention is the one that knows soft-caps.
    config = model_class.config_class(**arguments, attn_implementation="eager")
    model = model_class(config).float()
    # Written and read again: a checkpoint's tensors may be other ones than a module's parameters.
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        path = pathlib.Path(folder) / "model.safetensors"
        shapes = {name: stored.shape for name, stored in load_file(path).items()}
        tensors = {name: families.tensor(name, shape) for name, shape in shapes.items()}
        save_file(tensors, path, metadata={"format": "pt"})
        return model_class.from_pretrained(folder, config=config, dtype=torch.float32).eval()


def logits(model, tokens: np.ndarray) -> np.ndarray:
    """Returns the reference's logits of whole texts, float32 [B, T, V]."""
    with torch.no_grad():
        return model(torch.from_numpy(tokens).long(), use_cache=False).logits.numpy()


def main():
    golden.store(
        __doc__.splitlines()[0],
        families,
        families.FAMILIES,
        reference,
        lambda model: logits(model, families.tokens(1))[0],
    )


if __name__ == "__main__":
    main()
