"""Feed-forward layers of the decoder-only transformer."""

import flax.linen as nn

from speccascade.models.layers import Linear
from speccascade.models.transformer_config import ACTIVATIONS, TransformerConfig
from speccascade.sharding.active import constrain


class GatedMLP(nn.Module):
    """Gated feed-forward layer (Shazeer 2020)."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x):
        """Maps `[..., D]` to `[..., D]`."""
        c = self.config
        gate = ACTIVATIONS[c.activation](Linear(c.d_ff, c, c.mlp_bias, name="gate")(x))
        up = Linear(c.d_ff, c, c.mlp_bias, name="up")(x)
        inner = constrain(gate * up, "batch", None, "mlp")
        y = Linear(c.d_model, c, c.mlp_bias, name="down")(inner)
        return constrain(y, "batch", None, None)
