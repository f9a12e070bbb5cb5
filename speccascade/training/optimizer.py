"""Optimisers by name."""

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import optax
from optax import contrib

from speccascade.errors import UserError
from speccascade.inputs import values
from speccascade.models.interface import Params
from speccascade.sharding import Layout

_NAMES = ("adafactor", "adamw", "muon")
_SCHEDULES = ("linear", "constant")


def make_optimizer(
    config: ml_collections.ConfigDict, layout: Layout | None = None
) -> optax.GradientTransformation:
    """Clipping, then AdamW, Adafactor or Muon, under a linear warmup and what follows it.

    That is a linear decay to zero or, with `schedule` "constant", the rate itself. T5 is fine-tuned
    by Adafactor at a constant 1e-3 (Raffel et al. 2020): its rate is relative to the size of each
    parameter. Embeddings learn at `embedding_rate` (1) times the rate: T5's start fifty times as
    large as those that such a rate is usual for.

    Args:
      config: the config's `train`.
      layout: how the parameters lie on a mesh; None for one device.

    Raises:
      UserError: there is no such optimizer or schedule, or it needs whole matrices and has none.
    """
    name = config.optimizer
    if name not in _NAMES:
        raise UserError(f"unknown train.optimizer {name!r}; known: {', '.join(_NAMES)}")
    schedule = _schedule(config)

    def matrices(params: Params) -> Any:
        # Norm scales and embeddings: no decay, and Adam under Muon.
        def is_matrix(path, x):
            return x.ndim > 1 and not _is_embedding(path)

        return jax.tree_util.tree_map_with_path(is_matrix, params)

    if name == "adamw":
        update = optax.adamw(schedule, b2=0.98, weight_decay=config.weight_decay, mask=matrices)
    elif name == "adafactor":
        update = optax.chain(
            optax.adafactor(),  # a direction downhill, relative to each parameter's size
            optax.add_decayed_weights(-config.weight_decay, matrices),
            optax.scale_by_learning_rate(schedule, flip_sign=False),
        )
    else:
        _need_whole_matrices(name, layout)
        dimensions = contrib.MuonDimensionNumbers(-2, -1)
        update = contrib.muon(
            schedule,
            weight_decay=config.weight_decay,
            consistent_rms=0.2,  # updates as large as Adam's, so that one rate serves both
            adam_b2=0.98,
            muon_weight_dimension_numbers=lambda params: jax.tree.map(
                lambda m: dimensions if m else None, matrices(params)
            ),
        )

    def embeddings(params: Params) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: _is_embedding(path), params)

    scaled = optax.masked(optax.scale(config.get("embedding_rate", 1.0)), embeddings)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), update, scaled)


def _schedule(config: Mapping[str, Any]) -> optax.Schedule:
    after = values.choice("train.schedule=", config.get("schedule", "linear"), _SCHEDULES)
    rate, warmup = config["learning_rate"], config["warmup_steps"]
    if after == "constant":
        then = optax.constant_schedule(rate)
    else:
        then = optax.linear_schedule(rate, 0.0, config["num_steps"] - warmup)
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), then], [warmup])


def _need_whole_matrices(name: str, layout: Layout | None) -> None:
    if layout is not None and (layout.ways("fsdp") > 1 or layout.ways("model") > 1):
        sizes = ", ".join(f"{axis}={size}" for axis, size in layout.mesh.shape.items())
        raise UserError(
            f"train.optimizer={name} needs whole matrices, which mesh {sizes} cuts; take adamw or "
            "adafactor, or put all devices along data"
        )


def _is_embedding(path: tuple) -> bool:
    return "embedding" in jax.tree_util.keystr(path)
