"""The training of `tiny.py` on a mesh: `on_a_mesh.py:data=2,fsdp=2`."""

import ml_collections

from tests.training import tiny


def get_config(sizes: str = "") -> ml_collections.ConfigDict:
    """`sizes` are those of the mesh; without them there is none."""
    config = tiny.get_config()
    config.train.update(num_steps=6, eval_every=6, checkpoint_every=2)
    if sizes:
        parts = (part.split("=") for part in sizes.split(","))
        config.mesh = {axis: int(size) for axis, size in parts}
    return config
