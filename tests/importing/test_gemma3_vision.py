"""The text model of a Gemma 3 that can see is that of a Gemma 3 that cannot."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from speccascade import importing, models, text
from speccascade.errors import UserError
from speccascade.importing.preparation import context_length
from speccascade.inputs.fields import Fields
from tests.importing import decoder_only_families as families
from tests.importing import planned
from tests.jitted import forward

CONFIGS, GOLDEN = families.golden()

# google/gemma-3-4b-it, but for the sizes of its vision tower.
PUBLISHED = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "boi_token_index": 255999,
    "eoi_token_index": 256000,
    "eos_token_id": [1, 106],
    "image_token_index": 262144,
    "initializer_range": 0.02,
    "mm_tokens_per_image": 256,
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0",
    "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"},
}


def test_as_it_is_published():
    plan = planned.plan(PUBLISHED)
    config = models.build(plan.description).config
    assert (config.vocab_size, config.d_model, config.num_layers) == (262_208, 2560, 34)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (8, 4, 256)
    assert config.rope_scaling.factor == 8 and config.rope_base == 1_000_000
    windows = [config.layer_window(i) for i in range(34)]
    assert windows == [None if i % 6 == 5 else 1024 for i in range(34)]
    assert config.tie_embeddings and config.qk_norm and config.post_norms
    assert context_length(Fields(PUBLISHED, "config.json")) == 131_072


def write(folder, place, **changes):
    """Writes the golden Gemma 3 beside a vision tower, its tensors named by `place`."""
    folder.mkdir()
    text_config = {k: v for k, v in CONFIGS["gemma3"].items() if k != "architectures"}
    outer = {k: v for k, v in PUBLISHED.items() if k not in ("text_config", "eos_token_id")}
    config = {**outer, "text_config": {**text_config, **changes}}
    (folder / "config.json").write_text(json.dumps(config))
    names = {}

    def read(name, shape):
        names[name] = families.tensor(name, shape)
        return names[name]

    planned.imported(CONFIGS["gemma3"], read)
    tensors = {place(name): tensor for name, tensor in names.items()}
    prefix = "" if "language_model.model.norm.weight" in tensors else "model."
    for name in ("vision_tower.vision_model.post_layernorm", "multi_modal_projector.mm_soft_emb"):
        tensors[f"{prefix}{name}.weight"] = np.ones(3, np.float32)
    save_file(tensors, folder / "model.safetensors")
    text.train(["a tiny text"], 258).save(folder)
    return str(folder)


@pytest.mark.parametrize(
    "place",
    [
        lambda name: f"language_model.{name}",
        lambda name: name.replace("model.", "model.language_model.", 1),
    ],
    ids=["first releases", "later ones"],
)
def test_its_logits_are_the_golden_ones(tmp_path, place):
    found = importing.load(write(tmp_path / "hf", place))
    tokens = families.tokens(1)
    logits = forward(found.model, found.params, tokens, np.array([tokens.shape[1]]))
    np.testing.assert_allclose(logits[0], GOLDEN["gemma3"], atol=2e-4, rtol=2e-4)
    assert found.context_length == 128


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(UserError, match=r"config\.json has fields .*: text_config\.new_gate"):
        importing.load(write(tmp_path / "field", lambda name: f"language_model.{name}", new_gate=1))
    with pytest.raises(UserError, match="missing: language_model.model.norm.weight"):
        importing.load(
            write(
                tmp_path / "name",
                lambda name: f"language_model.{name.replace('l.norm.w', 'l.n.w')}",
            )
        )
    with pytest.raises(UserError, match="has text_config=3; it must be an object"):
        planned.plan({**PUBLISHED, "text_config": 3})
    # Which head it has is said beside the text_config.
    untied = planned.plan({**PUBLISHED, "tie_word_embeddings": False})
    assert untied.weights["head/weight"].name == "language_model.lm_head.weight"
    assert untied.weights["head/weight"].otherwise == "lm_head.weight"
