"""Feed-forward layers of the decoder-only transformer.

A routed layer has further axes: R branches, C of which are chosen for a token.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from speccascade.models.int8 import Int8, matrix
from speccascade.models.layers import Linear, fan_in, product
from speccascade.models.transformer_config import ACTIVATIONS, Routing, TransformerConfig
from speccascade.sharding.active import constrain, per_shard

# From so many rows on a product takes a TPU longer than reading its weights.
_LARGEST_TILE = 256


class GatedMLP(nn.Module):
    """Gated feed-forward layer (Shazeer 2020), `d_ff` wide."""

    config: TransformerConfig
    d_ff: int

    @nn.compact
    def __call__(self, x):
        """Maps `[..., D]` to `[..., D]`."""
        c = self.config
        gate = ACTIVATIONS[c.activation](Linear(self.d_ff, c, c.mlp_bias, name="gate")(x))
        up = Linear(self.d_ff, c, c.mlp_bias, name="up")(x)
        inner = constrain(gate * up, "batch", None, "mlp")
        y = Linear(c.d_model, c, c.mlp_bias, name="down")(inner)
        return constrain(y, "batch", None, None)


class RoutedMLP(nn.Module):
    """Gated feed-forward layers, of which a router chooses a few for each token; see `Routing`."""

    config: TransformerConfig
    routing: Routing

    @nn.compact
    def __call__(self, x_BSD):
        """Maps `[B, S, D]` to `[B, S, D]`."""
        c, r = self.config, self.routing
        wide, narrow = (r.branches, r.d_ff, c.d_model), (r.branches, c.d_model, r.d_ff)
        gate, up, down = (
            matrix(self, name, fan_in(batch_axis=0), shape, c)
            for name, shape in (("gate", wide), ("up", wide), ("down", narrow))
        )
        # Never rounded to int8: what is nearly equal would be chosen otherwise.
        router = self.param("router", fan_in(), (r.branches, c.d_model), c.param_dtype)
        y = _routed(r, ACTIVATIONS[c.activation], x_BSD, router, gate, up, down)
        if r.shared_d_ff is not None:
            router = self.param("shared_router", fan_in(), (1, c.d_model), c.param_dtype)
            weight = jax.nn.sigmoid(product(x_BSD, router, jnp.float32))
            shared = GatedMLP(c, r.shared_d_ff, name="shared")(x_BSD)
            y += (weight * shared.astype(jnp.float32)).astype(y.dtype)
        return constrain(y, "batch", None, None)


def feed_forward(config: TransformerConfig, layer: int, name: str) -> GatedMLP | RoutedMLP:
    """Returns the feed-forward layer of layer `layer`."""
    routing = config.layer_routing(layer)
    if routing is None:
        return GatedMLP(config, config.d_ff, name=name)
    return RoutedMLP(config, routing, name=name)


def _routed(
    routing: Routing,
    activation: Callable[[jax.Array], jax.Array],
    x_BSD: jax.Array,
    router_RD: jax.Array,
    gate_RFD: jax.Array | Int8,
    up_RFD: jax.Array | Int8,
    down_RDF: jax.Array | Int8,
) -> jax.Array:
    """Sends each token through the branches that it chooses, and sums what comes out.

    Tokens are sorted by branch into tiles, each of one branch, and a loop over the tiles reads of
    the weights its branch's alone. So a few tokens read what they chose and many compute what they
    chose, without a copy of weights and without a limit on what a branch takes: nothing that a row
    gets depends on others. `jax.lax.ragged_dot` multiplies many tokens as well on TPU; few, or any
    on CPU, it multiplies by every branch.
    """

    def own(x_BSD, router_RD, gate_RFD, up_RFD, down_RDF):
        share_BSR = jax.nn.softmax(product(x_BSD, router_RD, jnp.float32))
        weight_BSC, branch_BSC = jax.lax.top_k(share_BSR, routing.chosen)
        if routing.normalised:
            weight_BSC /= jnp.sum(weight_BSC, axis=-1, keepdims=True)
        token_NM, slot_BSC, branch_N, used_N = _tiles(branch_BSC, routing.branches)

        def through(tile):
            branch, used, x = tile

            def run(x):
                inner = activation(product(x, gate_RFD[branch])) * product(x, up_RFD[branch])
                return product(inner, down_RDF[branch])

            return jax.lax.cond(used, run, jnp.zeros_like, x)

        x_NMD = x_BSD.reshape(-1, x_BSD.shape[-1])[token_NM]
        y_NMD = jax.lax.map(through, (branch_N, used_N, x_NMD))
        y_BSCD = y_NMD.reshape(-1, y_NMD.shape[-1])[slot_BSC].astype(jnp.float32)
        return jnp.sum(y_BSCD * weight_BSC[..., None], axis=2).astype(x_BSD.dtype)

    def names(weight, *axes):  # an int8 matrix's scale has all but the last
        return jax.tree.map(lambda x: P(*axes[: x.ndim]), weight)

    rows = P("batch", None, None)
    cut = (
        P(None, None),
        names(gate_RFD, None, "mlp", None),
        names(up_RFD, None, "mlp", None),
        names(down_RDF, None, None, "mlp"),
    )
    own = per_shard(own, (rows, *cut), rows, summed="mlp")
    return own(x_BSD, router_RD, gate_RFD, up_RFD, down_RDF)


def _tiles(branch_BSC: jax.Array, branches: int):
    """Sorts tokens by branch into N tiles of M rows, each of one branch.

    Returns:
      int32 [N, M], the token of each row, counted through all rows of the batch; a row that nobody
      needs has the first. int32 [B, S, C], where each choice has its row, counted through all
      tiles. int32 [N], the branch of each tile. bool [N], which tiles are used at all.
    """
    branch = branch_BSC.reshape(-1)
    choices, chosen = branch.size, branch_BSC.shape[-1]
    # Large enough that most branches have one tile, whose weights are read once.
    size = min(max(8, 1 << (2 * choices // branches).bit_length()), _LARGEST_TILE)
    most = (choices + min(branches, choices) * (size - 1)) // size
    count = jnp.bincount(branch, length=branches)
    tiles = -(-count // size)
    last = jnp.cumsum(tiles)
    place = jnp.argsort(jnp.argsort(branch))  # of a choice among all, sorted by branch
    slot = place + ((last - tiles) * size - (jnp.cumsum(count) - count))[branch]
    token = jnp.zeros(most * size, jnp.int32).at[slot].set(jnp.arange(choices) // chosen)
    index = jnp.arange(most)
    of_tile = jnp.minimum(jnp.searchsorted(last, index, side="right"), branches - 1)
    return token.reshape(most, size), slot.reshape(branch_BSC.shape), of_tile, index < last[-1]
