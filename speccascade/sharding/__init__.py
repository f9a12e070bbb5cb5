"""One mesh for both models: where every parameter, cache and activation lies on it.

mesh.py    devices as a grid with named axes
rules.py   from logical axis names to mesh axes
layout.py  a mesh with rules for each model, and the shardings that follow
config.py  a layout from a config's section
hosts.py   the processes of a run: how they start, exchange, agree and end
active.py  what code that is traced for a layout asks of it
chips.py   what a TPU chip is published to reach
hlo.py     the collectives of a compiled program, to check all of it
"""

from speccascade.sharding.config import for_training, from_config
from speccascade.sharding.layout import Layout, Placement
from speccascade.sharding.mesh import make_mesh
from speccascade.sharding.rules import REPLICATED, SHARDED, TRAINED, Rules

__all__ = [
    "REPLICATED",
    "SHARDED",
    "TRAINED",
    "Layout",
    "Placement",
    "Rules",
    "for_training",
    "from_config",
    "make_mesh",
]
