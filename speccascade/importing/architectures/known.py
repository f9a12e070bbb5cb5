"""Which fields of a config.json matter, as data.

What an architecture reads itself it implements. Of the others some are harmless: they say nothing
about logits, whatever they hold. Some are refused unless they have the one value that is
implemented (null is always as good as absent). A field that is in none of these tables is refused
where it holds anything but null, false, 0 or nothing: it may change what the model computes.
"""

import re

from speccascade.inputs.fields import Fields

# Notes of libraries to themselves.
PRIVATE = re.compile(r"_.*|(unsloth|transformers|torch|tf|flax|onnx)[_.].*")

HARMLESS = frozenset(
    # Of every model.
    "architectures attn_implementation auto_map bos_token_id cache_implementation dtype "
    "eos_token_id experts_implementation finetuning_task ignore_index initializer_factor "
    "initializer_range is_decoder keys_to_ignore_at_inference loss_type name_or_path "
    "output_attentions output_hidden_states pad_token_id problem_type return_dict sep_token_id "
    "torchscript transformers_version use_bfloat16 use_cache use_return_dict vocab_file "
    # How long texts are: positions are computed and end nowhere.
    "max_position_embeddings max_seq_len max_seq_length max_sequence_length model_max_length "
    "n_ctx n_positions original_max_position_embeddings seq_length tokenizer_model_max_length "
    # What a classifier would add.
    "classifier_dropout id2label label2id num_labels "
    # Training, memory and speed.
    "attention_dropout attention_probs_dropout_prob attn_dropout attn_pdrop "
    "chunk_size_feed_forward dropout dropout_rate embd_pdrop embedding_dropout "
    "fused_bias_fc gradient_checkpointing hidden_dropout hidden_dropout_prob pretraining_tp "
    "resid_pdrop residual_dropout use_flash_attn use_flash_attention use_flash_attention_2 "
    "use_fused_rms_norm use_fused_rope use_sdpa use_unpad "
    # Tokenizers.
    "tokenizer_class padding_side prefix task_specific_params "
    # How texts were generated; decoding has settings of its own.
    "bad_words_ids begin_suppress_tokens decoder_start_token_id diversity_penalty do_sample "
    "early_stopping encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff "
    "eta_cutoff exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id "
    "generation_config guidance_scale length_penalty max_length max_new_tokens min_length "
    "min_new_tokens min_p no_repeat_ngram_size num_beam_groups num_beams num_return_sequences "
    "output_past output_scores penalty_alpha remove_invalid_values renormalize_logits "
    "repetition_penalty return_dict_in_generate stop_strings suppress_tokens temperature top_k "
    "top_p typical_p "
    # Of mixtures of experts, which need num_experts to be any.
    "output_router_logits router_aux_loss_coef".split()
)

# Refused unless they have one of these values.
ONLY = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "quantization_config": (None,),
    "tie_encoder_decoder": (False,),
    "use_bidirectional_attention": (False,),
}

# The same for models that have rotary positions and no encoder.
ONLY_DECODER_ONLY = {
    # Factors that other architectures have.
    "embedding_multiplier": (1.0,),
    "is_encoder_decoder": (False,),
    "logit_scale": (1.0,),
    "logits_scaling": (1.0,),
    "partial_rotary_factor": (1.0,),
    "residual_multiplier": (1.0,),
    "rope_interleaved": (False,),
    "rotary_pct": (1.0,),
    "use_mrope": (False,),
}

# By model_type: (harmless, refused unless).
OF: dict[str, tuple[str, dict[str, tuple]]] = {
    "llama": ("is_llama_config", ONLY_DECODER_ONLY),
    "mistral": ("", ONLY_DECODER_ONLY),
    # The biases of its queries, keys and values are always there.
    "qwen2": ("attention_bias qkv_bias", ONLY_DECODER_ONLY),
    "qwen3": ("", ONLY_DECODER_ONLY),
    "mixtral": ("router_jitter_noise", ONLY_DECODER_ONLY),  # noise of its training
    "qwen2_moe": ("attention_bias", ONLY_DECODER_ONLY),  # its own is called qkv_bias
    "qwen3_moe": ("", ONLY_DECODER_ONLY),
    "gemma": ("", {**ONLY_DECODER_ONLY, "hidden_activation": ("gelu_pytorch_tanh",)}),
    # `hidden_activation` is what counts.
    "gemma2": ("hidden_act", ONLY_DECODER_ONLY),
    # The reference has the second field and computes nothing with it.
    "gemma3_text": ("hidden_act", {**ONLY_DECODER_ONLY, "attn_logit_softcapping": (None,)}),
    "gemma3": (
        "boi_token_id boi_token_index eoi_token_id eoi_token_index image_token_id "
        "image_token_index mm_tokens_per_image vision_config",
        {"is_encoder_decoder": (False,)},
    ),
    "t5": ("", {"is_encoder_decoder": (True,)}),
}

# Of rotary parameters: what other kinds of them have.
ROPE_HARMLESS = (
    "attention_factor beta_fast beta_slow factor finetuned high_freq_factor long_factor "
    "low_freq_factor mscale mscale_all_dim original_max_position_embeddings short_factor truncate"
).split()


def check(fields: Fields, model_type: str) -> None:
    """Passes over what is harmless and checks what must have one value.

    Args:
      fields: the config.json.
      model_type: its `model_type`, which must be this one where it is there.

    Raises:
      UserError: a field has a value that is not implemented.
    """
    harmless, only = OF[model_type]
    fields.ignore(*HARMLESS, *harmless.split(), *filter(PRIVATE.fullmatch, fields.values))
    fields.expect("model_type", model_type)
    for name, values in {**ONLY, **only}.items():
        fields.expect(name, *values)
