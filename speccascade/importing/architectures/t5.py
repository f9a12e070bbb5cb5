"""T5 checkpoints, v1.0, v1.1 and Flan, as configurations of one encoder-decoder."""

from speccascade.importing.architectures import known
from speccascade.importing.architectures.decoder_only import MOST_LAYERS, size
from speccascade.importing.weights import Plan, Weight
from speccascade.inputs.fields import Fields

# Feed-forward layers: the activation here, the one there, and whether it is gated.
MLPS = {
    "relu": ("relu", "relu", False),
    "gated-gelu": ("gelu", "gelu_new", True),
    "gated-silu": ("silu", "silu", True),
}

# Our names and theirs; a decoder layer has cross-attention between its two sublayers.
ATTENTION = {"query": "q", "key": "k", "value": "v", "output": "o"}


def t5(fields: Fields) -> Plan:
    """Plans a T5 (`T5ForConditionalGeneration`)."""
    known.check(fields, "t5")
    kind = fields.choice("feed_forward_proj", MLPS.keys(), "relu")
    activation, their_activation, gated = MLPS[kind]
    fields.expect("dense_act_fn", their_activation)
    fields.expect("is_gated_act", gated)
    layers = size(fields, "num_layers", 6, most=MOST_LAYERS)
    vocab_size = size(fields, "vocab_size", 32128)
    buckets = size(fields, "relative_attention_num_buckets", 32)
    if buckets < 4 or buckets % 2:
        raise fields.wrong("relative_attention_num_buckets", "even and at least 4")
    distance = size(fields, "relative_attention_max_distance", 128)
    if distance <= buckets // 2:
        raise fields.wrong(
            "relative_attention_max_distance",
            f"above {buckets // 2}, half of relative_attention_num_buckets",
        )
    description = {
        "family": "encoder_decoder",
        "vocab_size": vocab_size,
        "d_model": size(fields, "d_model", 512),
        "num_layers": layers,
        "num_decoder_layers": size(fields, "num_decoder_layers", layers, most=MOST_LAYERS),
        "num_heads": size(fields, "num_heads", 8),
        "head_dim": size(fields, "d_kv", 64),
        "d_ff": size(fields, "d_ff", 2048),
        "activation": activation,
        "gated_mlp": gated,
        "tie_embeddings": _tied(fields),
        "num_buckets": buckets,
        "max_distance": distance,
        "decoder_start_id": _start(fields, vocab_size),
        "norm_eps": fields.number("layer_norm_epsilon", 1e-6, at_least=0),
    }
    return _plan(description)


def _start(fields: Fields, vocab_size: int) -> int:
    """Reads the id that every answer starts from: T5 takes the padding's where none is named."""
    for name in ("decoder_start_token_id", "pad_token_id"):
        if fields.has(name):
            return fields.integer(name, at_most=vocab_size - 1)
    return fields.integer("decoder_start_token_id")


def _tied(fields: Fields) -> bool:
    """Reads whether the head is the embedding, and therefore scaled.

    `transformers` 5 writes `tie_word_embeddings=true` for every T5 and tells in
    `scale_decoder_outputs` what the field used to say.
    """
    tied = fields.boolean("tie_word_embeddings", True)
    scaled = fields.boolean("scale_decoder_outputs", tied)
    if scaled and not tied:
        raise fields.wrong("scale_decoder_outputs", "false where tie_word_embeddings is false")
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


# The second is what the first was called until 2020.
ARCHITECTURES = {"T5ForConditionalGeneration": t5, "T5WithLMHeadModel": t5}
