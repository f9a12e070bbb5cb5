"""Whatever stands in a config.json: it makes a model, or one line names file and field."""

import json

import pytest

from speccascade import models
from speccascade.errors import UserError
from speccascade.importing import preparation
from speccascade.inputs.fields import Fields
from tests.importing import decoder_only_families, t5_families

VALUES = [
    None,
    "x",
    "16",
    "1e-05",
    [],
    [1],
    ["x", None],
    {},
    {"x": 1},
    True,
    False,
    -1,
    0,
    0.5,
    3,
    10**12,
    1e300,
    float("nan"),
    float("inf"),
]
_DECODERS, _T5 = decoder_only_families.golden()[0], t5_families.golden()[0]
_GEMMA3 = {key: value for key, value in _DECODERS["gemma3"].items() if key != "architectures"}
_LLAMA3 = {key: value for key, value in _DECODERS["llama3"].items() if key != "rope_parameters"}
_QWEN = {key: value for key, value in _DECODERS["qwen2_5"].items() if key != "rope_parameters"}
CONFIGS = {
    **_DECODERS,
    **_T5,
    "llama3, older": {
        **_LLAMA3,
        "rope_theta": 500.0,
        "rope_scaling": {
            "type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "qwen2_5, older": {
        **_QWEN,
        "rope_theta": 50.0,
        "rope_scaling": {"type": "linear", "factor": 4.0},
        "sliding_window": 5,
        "use_sliding_window": True,
    },
    "gemma3 that sees": {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "mm_tokens_per_image": 256,
        "text_config": _GEMMA3,
        "vision_config": {"hidden_size": 1152},
    },
}
# Where a value is at odds with another field, the message may name the other one.
OTHERS = {
    "num_hidden_layers": ["layer_types"],
    "num_attention_heads": ["num_key_value_heads", "hidden_size"],
    "vocab_size": ["decoder_start_token_id"],
    "relative_attention_num_buckets": ["relative_attention_max_distance"],
    "low_freq_factor": ["high_freq_factor"],
    "beta_slow": ["beta_fast"],
    "feed_forward_proj": ["dense_act_fn", "is_gated_act"],
    "tie_word_embeddings": ["scale_decoder_outputs"],
    "use_sliding_window": ["sliding_window", "layer_types"],
    "layer_types": ["sliding_window"],
    "model_type": ["max_position_embeddings"],
}
# Families that have all there is between them: of these the parameters are made, too.
SHAPED = ("qwen2_5", "gemma3", "v1_1")
_made: set[str] = set()


def places(values, path=()):
    """Returns the path of every field, those of inner objects too."""
    for name, value in values.items():
        yield (*path, name)
        if isinstance(value, dict) and name != "vision_config":
            yield from places(value, (*path, name))


def changed(values, path, value):
    """Returns a copy with another value at a path."""
    name, *rest = path
    return {**values, name: changed(values[name], rest, value) if rest else value}


def makes_a_model(config: dict, shapes: bool = True) -> None:
    """Plans and builds the model of a config.json; with `shapes`, its parameters too.

    Raises:
      UserError: with all that is wrong with it.
    """
    fields = Fields.parse(json.dumps(config), "config.json")
    plan, problems = preparation._plan(fields)
    if problems:
        raise UserError("; ".join(problems))
    model = models.build(plan.description)
    if shapes and (key := json.dumps(plan.description)) not in _made:
        shapes = models.shapes(model)
        assert preparation.flat(shapes).keys() == plan.weights.keys()
        _made.add(key)
    length = preparation.context_length(fields)
    assert length is None or length >= 1


@pytest.mark.parametrize("family", CONFIGS)
def test_every_field_may_hold_anything(family):
    makes_a_model(CONFIGS[family])
    refused = 0
    for path in places(CONFIGS[family]):
        for value in VALUES:
            try:
                shapes = family in SHAPED and value in (3, 10**12, 1e300)
                makes_a_model(changed(CONFIGS[family], path, value), shapes)
            except UserError as error:
                message, name = str(error), path[-1]
                assert "config.json" in message and "\n" not in message and len(message) < 600
                named = [name, *OTHERS.get(name, [])]
                assert any(other in message for other in named), (path, value, message)
                refused += 1
    assert refused > 100


# What configs of `transformers` 4 hold beside a model's own fields, and other libraries' notes.
FURTHER = {
    "_attn_implementation_autoset": True,
    "_commit_hash": "0123abcd",
    "_flash_attn_2_enabled": True,
    "_name_or_path": "./model",
    "add_cross_attention": False,
    "auto_map": {"AutoModelForCausalLM": "modeling.X"},
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "diversity_penalty": 0.0,
    "do_sample": True,
    "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None,
    "finetuning_task": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "gradient_checkpointing": False,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "is_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "length_penalty": 1.0,
    "max_length": 4096,
    "max_sequence_length": 64,
    "min_length": 0,
    "model_max_length": 64,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "prefix": None,
    "pretraining_tp": 1,
    "problem_type": None,
    "pruned_heads": {},
    "quantization_config": None,
    "remove_invalid_values": False,
    "repetition_penalty": 1.0,
    "return_dict": True,
    "return_dict_in_generate": False,
    "rope_scaling": None,
    "sep_token_id": None,
    "suppress_tokens": None,
    "task_specific_params": {"summarization": {"num_beams": 4, "prefix": "summarize: "}},
    "temperature": 0.9,
    "tf_legacy_loss": False,
    "tie_encoder_decoder": False,
    "tokenizer_class": "LlamaTokenizer",
    "top_k": 50,
    "top_p": 0.6,
    "torch_dtype": "float16",
    "torchscript": False,
    "typical_p": 1.0,
    "unsloth_fixed": True,
    "unsloth_version": "2025.1.1",
    "use_bfloat16": False,
    "use_cache": True,
    "use_experts": False,
    "use_mrope": False,
    "xformers": None,
}


@pytest.mark.parametrize("family", CONFIGS)
def test_fields_of_no_effect_refuse_no_model(family):
    further = {k: v for k, v in FURTHER.items() if k not in CONFIGS[family]}
    with_them = {**CONFIGS[family], **further}
    plans = [
        preparation._plan(Fields(config, "config.json")) for config in (CONFIGS[family], with_them)
    ]
    assert plans[0][1] == plans[1][1] == []
    assert plans[0][0].description == plans[1][0].description


def test_sliding_that_is_switched_off_refuses_no_model():
    for change in (
        {"sliding_window": None},
        {"use_sliding_window": False},
        {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28},
        {"layer_types": ["full_attention"] * 3},
    ):
        for family in ("llama2", "gemma"):
            makes_a_model({**CONFIGS[family], **change})
    for change in ({"sliding_window": 5}, {"layer_types": ["sliding_attention"] * 3}):
        with pytest.raises(UserError, match=next(iter(change))):
            makes_a_model({**CONFIGS["llama2"], **change})


def test_numbers_as_text_and_with_a_fraction_of_nothing():
    config = CONFIGS["llama2"]
    for name in ("hidden_size", "vocab_size", "num_hidden_layers", "rms_norm_eps"):
        for spelt in (str(config[name]), float(config[name])):
            plans = [
                preparation._plan(Fields({**config, name: value}, "config.json"))
                for value in (config[name], spelt)
            ]
            assert plans[0][0].description == plans[1][0].description and plans[1][1] == []


def test_a_model_type_alone_names_the_architecture():
    for family, config in CONFIGS.items():
        for absent in (None, [], "missing"):
            bare = {**config, "architectures": absent}
            if absent == "missing":
                del bare["architectures"]
            makes_a_model(bare)
        with pytest.raises(UserError, match=r"architectures|model_type"):
            makes_a_model({**config, "architectures": ["MambaForCausalLM"]})
        assert family


def test_null_softcaps_are_off_and_absent_ones_the_defaults():
    config = {k: v for k, v in CONFIGS["gemma2"].items() if "softcapping" not in k}
    for further, caps in (
        ({}, (50.0, 30.0)),
        ({"attn_logit_softcapping": None, "final_logit_softcapping": None}, (None, None)),
    ):
        found = preparation._plan(Fields({**config, **further}, "config.json"))[0].description
        assert (found["attn_softcap"], found["logit_softcap"]) == caps


@pytest.mark.parametrize(
    "model_type",
    ["llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen2_moe", "qwen3_moe"]
    + ["gemma", "gemma2", "gemma3_text", "gemma3", "t5"],
)
def test_everything_that_transformers_writes_is_known(model_type):
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(model_type)
    for written in (config.to_diff_dict(), config.to_dict()):
        written = json.loads(json.dumps(written))
        written |= {"dtype": "bfloat16", "decoder_start_token_id": 0}
        plan, problems = preparation._plan(Fields(written, "config.json"))
        assert problems == []
        assert models.build(plan.description)
