"""The `mesh` section of a config: `{"data": 1, "model": 8, "drafter": "replicated"}`."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from speccascade.errors import UserError
from speccascade.inputs import values
from speccascade.sharding.layout import Layout
from speccascade.sharding.mesh import make_mesh
from speccascade.sharding.rules import REPLICATED, SHARDED, TRAINED

_DRAFTERS = {"sharded": SHARDED, "replicated": REPLICATED}


def from_config(
    section: Mapping[str, Any] | None, devices: Sequence[jax.Device] | None = None
) -> Layout | None:
    """Returns the layout that a config's section asks for.

    Args:
      section: the mesh's axes with their sizes, and where wanted `drafter`: "sharded" as the expert
        is, or "replicated", whole on every device along `model`. None for one device.
      devices: which; None for all there are.

    Raises:
      UserError: an axis or a choice is unknown, the sizes do not use up the devices, or several
        processes have no mesh.
    """
    if section is None:
        if devices is None and jax.process_count() > 1:
            raise UserError(
                f"{jax.process_count()} processes share no mesh: give the config one, such as "
                "--config.mesh='{\"data\": -1}'"
            )
        return None
    sizes = dict(values.section("mesh", section))
    drafter = values.choice("mesh.drafter=", sizes.pop("drafter", "sharded"), _DRAFTERS)
    return Layout(make_mesh(sizes, devices), drafter=_DRAFTERS[drafter])


def for_training(
    section: Mapping[str, Any] | None, devices: Sequence[jax.Device] | None = None
) -> Layout | None:
    """Returns the layout in which a model is trained on the mesh of a config's section.

    Args:
      section: as `from_config` takes it; how a drafter lies in decoding is of no account.
      devices: which; None for all there are.

    Raises:
      UserError: as `from_config`.
    """
    layout = from_config(section, devices)
    return layout and Layout(layout.mesh, expert=TRAINED, drafter=TRAINED)
