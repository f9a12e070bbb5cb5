"""T5 checkpoints, v1.0, v1.1 and Flan, as configurations of one encoder-decoder."""

from speccascade.errors import UserError
from speccascade.importing.architectures.decoder_only import SILENT
from speccascade.importing.weights import Fields, Plan, Weight

# Feed-forward layers: the activation here, the one there, and whether it is gated.
MLPS = {
    "relu": ("relu", "relu", False),
    "gated-gelu": ("gelu", "gelu_new", True),
    "gated-silu": ("silu", "silu", True),
}

# What says nothing about the computation of logits, beyond what says so everywhere.
T5_SILENT = (
    "classifier_dropout",
    "dropout_rate",
    "gradient_checkpointing",
    "initializer_factor",
    "n_positions",
    "output_past",
    "task_specific_params",
    "tokenizer_class",
)

# Our names and theirs; a decoder layer has cross-attention between its two sublayers.
ATTENTION = {"query": "q", "key": "k", "value": "v", "output": "o"}


def t5(fields: Fields) -> Plan:
    """Plans a T5 (`T5ForConditionalGeneration`)."""
    fields.ignore(*SILENT, *T5_SILENT)
    fields.expect("model_type", "t5")
    fields.expect("is_encoder_decoder", True)
    fields.expect("is_decoder", False)
    fields.expect("tie_encoder_decoder", False)
    kind = fields.get("feed_forward_proj", "relu")
    if kind not in MLPS:
        raise UserError(
            f"config.json has feed_forward_proj={kind!r}: not implemented, only {', '.join(MLPS)}"
        )
    activation, their_activation, gated = MLPS[kind]
    fields.expect("dense_act_fn", their_activation)
    fields.expect("is_gated_act", gated)
    layers = fields.get("num_layers", 6)
    decoder_layers = fields.get("num_decoder_layers", None)
    if (start := fields.get("decoder_start_token_id")) is None:
        raise UserError("config.json has decoder_start_token_id=None; T5 needs an id to start from")
    description = {
        "family": "encoder_decoder",
        "vocab_size": fields.get("vocab_size", 32128),
        "d_model": fields.get("d_model", 512),
        "num_layers": layers,
        "num_decoder_layers": layers if decoder_layers is None else decoder_layers,
        "num_heads": fields.get("num_heads", 8),
        "head_dim": fields.get("d_kv", 64),
        "d_ff": fields.get("d_ff", 2048),
        "activation": activation,
        "gated_mlp": gated,
        "tie_embeddings": _tied(fields),
        "num_buckets": fields.get("relative_attention_num_buckets", 32),
        "max_distance": fields.get("relative_attention_max_distance", 128),
        "decoder_start_id": start,
        "norm_eps": fields.get("layer_norm_epsilon", 1e-6),
    }
    return _plan(description)


def _tied(fields: Fields) -> bool:
    """Reads whether the head is the embedding, and therefore scaled.

    `transformers` 5 writes `tie_word_embeddings=true` for every T5 and tells in
    `scale_decoder_outputs` what the field used to say.
    """
    tied = fields.get("tie_word_embeddings", True)
    scaled = fields.get("scale_decoder_outputs", tied)
    if scaled and not tied:
        raise UserError(
            "config.json has scale_decoder_outputs=True and tie_word_embeddings=False: not "
            "implemented, a scaled head is tied"
        )
    return scaled


def _plan(description: dict) -> Plan:
    """Adds where each parameter comes from."""
    mlp = {"up": "wi", "down": "wo"}
    if description["gated_mlp"]:
        mlp = {"gate": "wi_0", "up": "wi_1", "down": "wo"}
    weights = {"embedding": Weight("shared.weight")}
    ignored = [
        r"(encoder|decoder)\.embed_tokens\.weight",  # `shared.weight` again
        # Of old v1.0 checkpoints; cross-attention has no positions.
        r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
    ]
    stacks = {
        "encoder": (
            description["num_layers"],
            [("attention", "SelfAttention", ATTENTION), ("mlp", "DenseReluDense", mlp)],
        ),
        "decoder": (
            description["num_decoder_layers"],
            [
                ("attention", "SelfAttention", ATTENTION),
                ("cross_attention", "EncDecAttention", ATTENTION),
                ("mlp", "DenseReluDense", mlp),
            ],
        ),
    }
    for stack, (layers, sublayers) in stacks.items():
        weights[f"{stack}/relative/embedding"] = Weight(
            f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        )
        weights[f"{stack}/final_norm/scale"] = Weight(f"{stack}.final_layer_norm.weight")
        for i in range(layers):
            for j, (part, their_part, names) in enumerate(sublayers):
                place = f"{stack}.block.{i}.layer.{j}"
                weights[f"{stack}/{part}_norm_{i}/scale"] = Weight(f"{place}.layer_norm.weight")
                for ours, theirs in names.items():
                    weights[f"{stack}/{part}_{i}/{ours}/weight"] = Weight(
                        f"{place}.{their_part}.{theirs}.weight"
                    )
    if description["tie_embeddings"]:
        untied = {"tie_word_embeddings": False, "scale_decoder_outputs": True}
        return Plan(description, weights, tuple(ignored), Weight("lm_head.weight"), untied)
    # `transformers` 5 ties the head of every T5, scaled or not, and does not store it twice.
    weights["head/weight"] = Weight("lm_head.weight", otherwise="shared.weight")
    return Plan(description, weights, tuple(ignored))


ARCHITECTURES = {"T5ForConditionalGeneration": t5}
