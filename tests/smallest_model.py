"""The smallest decoder-only model."""

MODEL = {
    "family": "decoder_only",
    "vocab_size": 37,
    "d_model": 8,
    "num_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
    "head_dim": 4,
    "d_ff": 8,
}
