"""config.json in today's and in older spellings, and what in it is refused."""

import pytest

from speccascade import models
from speccascade.errors import UserError
from speccascade.importing.architectures import decoder_only
from speccascade.inputs.fields import Fields
from tests.importing import decoder_only_families as families
from tests.importing import planned

CONFIGS = families.golden()[0]

# What an older config.json has instead of today's fields (None: nothing).
OLDER = {
    "llama2": {"head_dim": None, "rope_parameters": None, "rope_theta": 10_000.0},
    "llama3": {
        "rope_parameters": None,
        "rope_theta": 500.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "qwen2": {
        "rope_parameters": None,
        "rope_theta": 1e6,
        "layer_types": None,
        "sliding_window": 32_768,
        "max_window_layers": 2,
        "use_mrope": False,
    },
    "qwen2_5": {
        "rope_parameters": None,
        "rope_theta": 50.0,
        "rope_scaling": {"type": "linear", "factor": 4.0},
        "layer_types": None,
    },
    "gemma": {
        "rope_parameters": None,
        "hidden_act": "gelu",
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": None,
    },
    "gemma2": {
        "rope_parameters": None,
        "layer_types": None,
        "hidden_act": "gelu_pytorch_tanh",
        "sliding_window_size": 5,
        "cache_implementation": "hybrid",
    },
    "gemma3": {
        "rope_parameters": None,
        "layer_types": None,
        "_sliding_window_pattern": None,
        "sliding_window_pattern": 3,
        "rope_theta": 1e4,
        "rope_local_base_freq": 30.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
}


def changed(family: str, change: dict) -> dict:
    """Returns a family's config.json with fields changed, or removed where None."""
    fields = {**CONFIGS[family], **change}
    return {name: value for name, value in fields.items() if change.get(name, 0) is not None}


@pytest.mark.parametrize("family", OLDER)
def test_older_spellings_say_the_same(family):
    old, new = (planned.plan(changed(family, change)) for change in (OLDER[family], {}))
    assert models.build(old.description) == models.build(new.description)
    assert old.weights == new.weights and old.ignored == new.ignored


def test_smollm2_as_it_is_published():
    plan = planned.plan(
        {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": 576,
            "initializer_range": 0.041666666666666664,
            "intermediate_size": 1536,
            "is_llama_config": True,
            "max_position_embeddings": 8192,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": 9,
            "num_hidden_layers": 30,
            "num_key_value_heads": 3,
            "pad_token_id": 2,
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-05,
            "rope_interleaved": False,
            "rope_scaling": None,
            "rope_theta": 100000,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
            "transformers_version": "4.42.3",
            "use_cache": True,
            "vocab_size": 49152,
        }
    )
    config = models.build(plan.description).config
    assert (config.head_dim, config.rope_base, config.norm_eps) == (64, 100_000, 1e-5)
    assert config.tie_embeddings and config.window is None and not config.qkv_bias
    assert plan.tied_head.name == "lm_head.weight" and "head/weight" not in plan.weights


def test_gemma_3_1b_as_it_is_published():
    plan = planned.plan(
        {
            "architectures": ["Gemma3ForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "attn_logit_softcapping": None,
            "bos_token_id": 2,
            "cache_implementation": "hybrid",
            "eos_token_id": [1, 106],
            "final_logit_softcapping": None,
            "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size": 1152,
            "initializer_range": 0.02,
            "intermediate_size": 6912,
            "max_position_embeddings": 32768,
            "model_type": "gemma3_text",
            "num_attention_heads": 4,
            "num_hidden_layers": 26,
            "num_key_value_heads": 1,
            "pad_token_id": 0,
            "query_pre_attn_scalar": 256,
            "rms_norm_eps": 1e-06,
            "rope_local_base_freq": 10000,
            "rope_scaling": None,
            "rope_theta": 1000000,
            "sliding_window": 512,
            "sliding_window_pattern": 6,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.50.0.dev0",
            "use_cache": True,
            "vocab_size": 262144,
        }
    )
    config = models.build(plan.description).config
    windows = [config.layer_window(i) for i in range(26)]
    assert windows == [None if i in (5, 11, 17, 23) else 512 for i in range(26)]
    assert (config.rope_base, config.local_rope_base) == (1_000_000, 10_000)
    assert config.tie_embeddings and config.logit_softcap is None


def test_mistral_7b_as_it_is_published():
    first = {
        "architectures": ["MistralForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "mistral",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.34.0.dev0",
        "use_cache": True,
        "vocab_size": 32000,
    }
    config = models.build(planned.plan(first).description).config
    assert [config.layer_window(i) for i in (0, 1, 31)] == [4096] * 3
    assert (config.num_kv_heads, config.head_dim, config.rope_base) == (8, 128, 10_000)
    third = {**first, "rope_theta": 1e6, "sliding_window": None, "vocab_size": 32768}
    del third["num_key_value_heads"]  # 8 where nothing is said
    config = models.build(planned.plan(third).description).config
    assert config.window is None and config.num_kv_heads == 8


def test_untied_heads_are_read_and_tied_ones_ignored():
    untied = planned.plan(changed("gemma", {"tie_word_embeddings": False}))
    assert untied.weights["head/weight"].name == "lm_head.weight"
    assert "head/weight" not in planned.plan(CONFIGS["gemma"]).weights
    # The default where the config does not say is the architecture's own.
    absent = planned.plan(changed("qwen3", {"tie_word_embeddings": None}))
    assert not absent.description["tie_embeddings"]


def test_a_context_that_was_not_scaled_is_the_one_of_the_first_training():
    scaling = {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1, "high_freq_factor": 4}
    plan = planned.plan(changed("llama2", {"rope_parameters": scaling}))
    assert plan.description["rope_scaling"]["original_positions"] == 128


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("llama2", {"hidden_size": None}, "lacks hidden_size"),
        ("llama2", {"vocab_size": "5x"}, "vocab_size='5x'; it must be a whole number"),
        ("llama2", {"hidden_act": "xielu"}, "hidden_act='xielu': not implemented, only silu, "),
        ("llama2", {"rope_interleaved": True}, "rope_interleaved=True: not implemented"),
        ("llama2", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5: not implemented"),
        ("llama2", {"model_type": "mistral"}, "model_type='mistral': not implemented"),
        (
            "llama2",
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rope_scaling.type='dynamic': not implemented, only default, linear, llama3",
        ),
        (
            "qwen3_yarn",
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "truncate": False}},
            "rope_parameters.truncate=False: not implemented",
        ),
        (
            "qwen3_yarn",
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "beta_slow": 40}},
            "rope_parameters.beta_slow=40; it must be below beta_fast=32.0",
        ),
        (
            "qwen3_yarn",
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1e9}},
            "rope_parameters.attention_factor=1000000000.0; it must be such that queries",
        ),
        (
            "gemma3",
            {"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 4.0}}},
            "rope_parameters.full_attention.rope_type='yarn'; it must be default, linear or llama3",
        ),
        (
            "mistral",
            {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
            "it must be sliding_attention in every layer with sliding_window=5",
        ),
        (
            "mistral_v3",
            {"layer_types": ["sliding_attention"] * 3},
            "it must be full_attention in every layer with sliding_window=None",
        ),
        (
            "llama2",
            {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e6}},
            "rope_parameters.rope_type='longrope': not implemented",
        ),
        (
            "llama2",
            {"rope_parameters": {"partial_rotary_factor": 0.5}},
            "rope_parameters.partial_rotary_factor=0.5: not",
        ),
        ("llama2", {"rope_parameters": {"rope_type": "linear"}}, "lacks rope_parameters.factor"),
        ("llama2", {"rope_parameters": None, "rope_theta": "x"}, "rope_theta='x'"),
        (
            "qwen2_5",
            {"layer_types": ["full_attention"]},
            "layer_types=['full_attention']; it must be a list of 3, each one",
        ),
        (
            "qwen2_5",
            {"layer_types": ["chunked_attention"] * 3},
            "it must be a list of 3, each one of sliding_attention, full_attention",
        ),
        ("qwen2_5", {"use_sliding_window": False}, "layers that slide and no sliding_window"),
        ("qwen2", {"use_mrope": True}, "use_mrope=True: not implemented"),
        ("gemma", {"hidden_activation": "gelu"}, "hidden_activation='gelu': not implemented"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
        (
            "gemma3",
            {"rope_scaling": {"type": "linear", "factor": 8.0}},
            "rope_scaling.type='linear'; it must be called rope_type",
        ),
        ("gemma3", {"rope_parameters": {"rope_theta": 1e6}}, "rope_parameters.rope_theta: not"),
        (
            "gemma3",
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "rope_parameters.sliding_attention.rope_type='linear': not implemented, only 'default'",
        ),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(family, change, message):
    with pytest.raises(UserError, match="^[^\n]+$") as caught:
        planned.plan(changed(family, change))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        *({"sliding_window": 2048}, {"sliding_window": 2**20}, {"sliding_window": None}),
        *({"logit_scale": 1.0}, {"residual_multiplier": 1}, {"embedding_multiplier": "1.0"}),
        *({"quantization_config": {}}, {"logits_scaling": 1.0}),
    ],
    ids=repr,
)
def test_what_has_no_effect_is_passed_over(change):
    config = {**families.golden()[0]["llama3"], "max_position_embeddings": 2048}
    assert planned.plan({**config, **change}).description == planned.plan(config).description


@pytest.mark.parametrize("name", ["logit_scale", "residual_multiplier", "sliding_window"])
def test_what_has_an_effect_is_refused(name):
    config = {**families.golden()[0]["llama3"], "max_position_embeddings": 2048}
    with pytest.raises(UserError, match=f"{name}=2: not implemented, only"):
        planned.plan({**config, name: 2})


def test_a_field_that_nobody_reads_is_left_over():
    further = {"attention_multiplier": 2.0, "new_gate": False, "num_experts": 8}
    fields = Fields({**CONFIGS["llama2"], **further}, "config.json")
    decoder_only.llama(fields)
    assert fields.unread() == ["attention_multiplier", "num_experts"]
