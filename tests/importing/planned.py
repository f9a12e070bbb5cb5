"""Models made as the plans of their import say, without a checkpoint on disk."""

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import models
from speccascade.importing.architectures import planner
from speccascade.importing.weights import Plan
from speccascade.inputs.fields import Fields


def plan(config: dict) -> Plan:
    """Plans the import of a config.json, all of whose fields must be known."""
    fields = Fields(config, "config.json")
    found = planner(fields)(fields)
    assert fields.unread() == []
    return found


def imported(config: dict, read):
    """Makes model and parameters as a plan says.

    Args:
      config: the config.json.
      read: from a tensor's name and shape to the tensor.
    """
    found = plan(config)
    model = models.build(found.description)
    shapes = models.shapes(model)

    def load(path, leaf):
        weight = found.weights[jax.tree_util.keystr(path, simple=True, separator="/")]
        names = weight.names(())
        if weight.stacked is None:
            value = read(names[0], leaf.shape)
        else:
            value = np.stack([read(name, leaf.shape[1:]) for name in names])
        value = value if weight.transform is None else weight.transform(value)
        assert value.shape == leaf.shape
        return jnp.asarray(value, leaf.dtype)

    params = jax.tree_util.tree_map_with_path(load, shapes)
    assert len(jax.tree.leaves(params)) == len(found.weights)
    return model, params
