"""Optimisers by name."""

from typing import Any

import jax
import ml_collections
import optax
from optax import contrib

from speccascade.errors import UserError
from speccascade.models.interface import Params


def make_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """Clipping, then AdamW or Muon, under a linear warmup and a linear decay to zero.

    Embeddings learn at `embedding_rate` (1) times the rate: T5's start fifty times as large as
    those that such a rate is usual for.
    """
    schedule = optax.join_schedules(
        [
            optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps),
            optax.linear_schedule(
                config.learning_rate, 0.0, config.num_steps - config.warmup_steps
            ),
        ],
        [config.warmup_steps],
    )

    def matrices(params: Params) -> Any:
        # Norm scales and embeddings: no decay, and Adam under Muon.
        def is_matrix(path, x):
            return x.ndim == 2 and not _is_embedding(path)

        return jax.tree_util.tree_map_with_path(is_matrix, params)

    if config.optimizer == "adamw":
        update = optax.adamw(schedule, b2=0.98, weight_decay=config.weight_decay, mask=matrices)
    elif config.optimizer == "muon":
        dimensions = contrib.MuonDimensionNumbers()
        update = contrib.muon(
            schedule,
            weight_decay=config.weight_decay,
            consistent_rms=0.2,  # updates as large as Adam's, so that one rate serves both
            adam_b2=0.98,
            muon_weight_dimension_numbers=lambda params: jax.tree.map(
                lambda m: dimensions if m else None, matrices(params)
            ),
        )
    else:
        raise UserError(f"unknown train.optimizer {config.optimizer!r}; known: adamw, muon")

    def embeddings(params: Params) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: _is_embedding(path), params)

    scaled = optax.masked(optax.scale(config.get("embedding_rate", 1.0)), embeddings)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), update, scaled)


def _is_embedding(path: tuple) -> bool:
    return "embedding" in jax.tree_util.keystr(path)
