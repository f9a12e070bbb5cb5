"""What a T5 is made of, as data."""

import dataclasses

from speccascade.errors import UserError
from speccascade.models.transformer_config import (
    ACTIVATIONS,
    DTYPES,
    WEIGHT_DTYPES,
    check_choices,
    check_head,
    check_sizes,
)


@dataclasses.dataclass(frozen=True)
class T5Config:
    """The sizes and options of one encoder-decoder.

    Attributes:
      vocab_size: number of token ids.
      d_model: width of the residual stream.
      num_layers: layers of the encoder.
      num_decoder_layers: layers of the decoder.
      num_heads: attention heads.
      head_dim: width of a head.
      d_ff: width of the feed-forward layer.
      activation: of the feed-forward layer or of its gate, a name in `ACTIVATIONS`; "gelu" is its
        tanh approximation.
      gated_mlp: whether the feed-forward layer is gated (v1.1 and Flan) or plain (v1.0).
      tie_embeddings: whether the output head is the embedding; the stream is then divided by
        sqrt(d_model) before it (v1.0).
      head_size: how many token ids an output head of its own scores, for a drafter; the others are
        never likely. None for all of them.
      num_buckets: buckets of relative positions; even, since the encoder gives half of them to each
        direction.
      max_distance: the distance from which on all positions share the last bucket.
      decoder_start_id: the id that every answer starts from.
      norm_eps: epsilon of the RMS norms.
      dtype: dtype of activations and of the operands of matrix products, which accumulate in
        float32.
      param_dtype: dtype in which parameters are made.
      weight_dtype: dtype in which the embedding and the matrices of products are kept: "int8" for
        whole numbers with one float32 scale per row; None for `param_dtype`.
    """

    vocab_size: int
    d_model: int
    num_layers: int
    num_decoder_layers: int
    num_heads: int
    head_dim: int
    d_ff: int
    activation: str = "gelu"
    gated_mlp: bool = True
    tie_embeddings: bool = False
    head_size: int | None = None
    num_buckets: int = 32
    max_distance: int = 128
    decoder_start_id: int = 0
    norm_eps: float = 1e-6
    dtype: str = "float32"
    param_dtype: str = "float32"
    weight_dtype: str | None = None

    def __post_init__(self):
        check_sizes(
            self, "vocab_size d_model num_layers num_decoder_layers num_heads head_dim d_ff"
        )
        check_head(self)
        choices = {"activation": ACTIVATIONS, "dtype": DTYPES, "param_dtype": DTYPES}
        check_choices(self, {**choices, "weight_dtype": WEIGHT_DTYPES})
        if self.num_buckets < 4 or self.num_buckets % 2:
            raise UserError(f"num_buckets={self.num_buckets} must be even and at least 4")
        if self.max_distance <= self.num_buckets // 2:
            raise UserError(
                f"max_distance={self.max_distance} must be above {self.num_buckets // 2}, half of "
                "num_buckets"
            )
        if not 0 <= self.decoder_start_id < self.vocab_size:
            raise UserError(
                f"decoder_start_id={self.decoder_start_id} is outside the vocabulary of "
                f"{self.vocab_size} tokens"
            )
