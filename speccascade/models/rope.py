"""Rotary positions (Su et al. 2021): frequencies, their scaling for long contexts, and the turn.

Frequencies are computed step by step as `transformers` computes them, in float32: an exponent that
is rounded in another way visibly moves the angles of late positions.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from speccascade.errors import UserError
from speccascade.inputs.fields import Fields

KINDS = ("linear", "llama3", "yarn")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How the frequencies of a model are stretched to contexts longer than it was first trained on.

    Attributes:
      kind: "linear" divides every frequency by `factor`; "llama3" (Llama 3.1) divides the low ones,
        keeps the high ones and goes smoothly from one to the other between; "yarn" (Peng et al.
        2023) does the same, with equal steps from pair to pair between.
      factor: the divisor, above 0.
      low_freq_factor: not of linear: waves longer than original_positions / low_freq_factor are
        low. YaRN's beta_slow.
      high_freq_factor: not of linear: waves shorter than original_positions / high_freq_factor are
        high; above `low_freq_factor`. YaRN's beta_fast.
      original_positions: not of linear: the context length that the model was first trained on.
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_positions: int = 8192

    def __post_init__(self):
        if self.kind not in KINDS:
            raise UserError(
                f"rope_scaling kind={self.kind!r} is unknown; choose one of: {', '.join(KINDS)}"
            )
        for name in ("factor", "low_freq_factor", "high_freq_factor", "original_positions"):
            if not (value := getattr(self, name)) > 0:
                raise UserError(f"rope_scaling {name}={value} must be above 0")
        if not self.high_freq_factor > self.low_freq_factor:
            raise UserError(
                f"rope_scaling high_freq_factor={self.high_freq_factor} must be above "
                f"low_freq_factor={self.low_freq_factor}"
            )

    @classmethod
    def of(cls, value: Any) -> "RopeScaling | None":
        """Makes a scaling of a mapping of its fields; None and a scaling stay what they are.

        The mapping may be a dict or `Fields`.

        Raises:
          UserError: a field is unknown or missing, or a value is out of range.
        """
        if value is None or isinstance(value, cls):
            return value
        fields = value if isinstance(value, Fields) else Fields(value, "rope_scaling")
        known = [f.name for f in dataclasses.fields(cls)]
        if unknown := sorted(set(fields.values) - set(known)):
            raise UserError(
                f"rope_scaling has unknown fields {', '.join(unknown)}; known: {', '.join(known)}"
            )
        if missing := [name for name in ("kind", "factor") if name not in fields.values]:
            raise UserError(f"rope_scaling lacks {', '.join(missing)}")
        names = [name for name in fields.values if name != "kind"]
        numbers: dict[str, Any] = {name: fields.number(name, above=0) for name in names}
        return cls(kind=fields.text("kind"), **numbers)


def frequencies(head_dim: int, base: float, scaling: RopeScaling | None = None) -> np.ndarray:
    """Returns the angle per position of each pair of components, float32 [head_dim / 2]."""
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequency = np.float32(1) / np.power(np.float32(base), exponent)
    if scaling is None:
        return frequency
    scaled = frequency / np.float32(scaling.factor)
    if scaling.kind == "linear":
        return scaled
    if scaling.kind == "yarn":
        kept = _kept_by_yarn(head_dim, base, scaling)
        return (scaled * (1 - kept) + frequency * kept).astype(np.float32)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    waves = scaling.original_positions / (2 * math.pi / frequency)  # in the original context
    kept = np.clip((waves - low) / (high - low), 0, 1)
    return ((1 - kept) * scaled + kept * frequency).astype(np.float32)


def _kept_by_yarn(head_dim: int, base: float, scaling: RopeScaling) -> np.ndarray:
    """Returns how much of each frequency is kept, from 0 to 1, float32 [head_dim / 2]."""

    def place(turns: float) -> float:
        """Returns which pair turns so often in the original context; not a whole number."""
        wave = scaling.original_positions / (turns * 2 * math.pi)
        return head_dim * math.log(wave) / (2 * math.log(base))

    first = max(math.floor(place(scaling.high_freq_factor)), 0)
    last = float(min(math.ceil(place(scaling.low_freq_factor)), head_dim - 1))
    if first == last:
        last += 0.001
    pairs = np.arange(head_dim // 2, dtype=np.float32)
    return 1 - np.clip((pairs - np.float32(first)) / np.float32(last - first), 0, 1)


def rotate(x_BSNH: jax.Array, positions_BS: jax.Array, frequency: np.ndarray) -> jax.Array:
    """Turns the two halves of each head against each other, in float32.

    Args:
      x_BSNH: queries or keys, N heads.
      positions_BS: int32, the position of each token.
      frequency: float32 [H / 2], from `frequencies`.
    """
    angle = positions_BS[..., None, None].astype(jnp.float32) * frequency
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    a, b = jnp.split(x_BSNH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BSNH.dtype)
