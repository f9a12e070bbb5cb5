"""The configs of the paper's pairs: sizes as published, and what an import of each makes."""

import pathlib
import runpy

import jax
import pytest

from configs import paper
from speccascade import models, tasks
from speccascade.errors import UserError
from speccascade.evaluate import run
from speccascade.inference.reading import expand
from speccascade.models import memory, quantisation
from speccascade.models.memory import leaves
from speccascade.plan import subject
from speccascade.tasks import sandbox
from tests.importing import decoder_only_families, planned

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"

# Parameters of the published checkpoints, as their model cards count them.
PUBLISHED = {
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-2-9b": 9_241_705_984,
    "google/gemma-2-27b": 27_227_128_320,
    "google/t5-v1_1-small": 76_961_152,
    "google/t5-v1_1-large": 783_150_080,
    "google/t5-v1_1-xl": 2_849_757_184,
}


def shapes(name):
    model = models.build(paper.ARCHITECTURES[name])
    return models.shapes(model)


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_those_published(name):
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes(name))) == PUBLISHED[name]


def test_bytes_of_gemma_2_27b():
    # Layer by layer: queries and outputs, keys and values, three matrices of the feed-forward.
    layer = 2 * 4096 * 4608 + 2 * 2048 * 4608 + 3 * 36_864 * 4608
    matrices = 46 * layer + 256_000 * 4608
    norms = (4 * 46 + 1) * 4608
    model = models.build({**paper.ARCHITECTURES["google/gemma-2-27b"], "param_dtype": "bfloat16"})
    params = models.shapes(model)
    assert memory.size(params) == 2 * matrices + 4 * norms
    channels = 46 * (4096 + 4608 + 2 * 2048 + 2 * 36_864 + 4608) + 256_000
    stored = models.shapes(quantisation.quantised(model))
    assert memory.size(stored) == matrices + 4 * channels + 4 * norms


@pytest.mark.parametrize("size", ["2b", "9b", "27b"])
def test_gemma_is_what_an_import_makes(size):
    ours = paper.ARCHITECTURES[f"google/gemma-2-{size}"]
    fields = {
        **decoder_only_families.golden()[0]["gemma2"],
        "vocab_size": ours["vocab_size"],
        "hidden_size": ours["d_model"],
        "num_hidden_layers": ours["num_layers"],
        "num_attention_heads": ours["num_heads"],
        "num_key_value_heads": ours["num_kv_heads"],
        "head_dim": ours["head_dim"],
        "intermediate_size": ours["d_ff"],
        "sliding_window": 4096,
        "query_pre_attn_scalar": ours["query_pre_attn_scalar"],
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "layer_types": ["sliding_attention", "full_attention"] * (ours["num_layers"] // 2),
        "rope_parameters": {"rope_theta": 10_000.0, "rope_type": "default"},
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
    }
    made, wanted = (models.build(d).config for d in (planned.plan(fields).description, ours))
    windows = [[c.layer_window(i) for i in range(c.num_layers)] for c in (made, wanted)]
    assert windows[0] == windows[1]
    plain = {"window_pattern": wanted.window_pattern}
    assert models.build({**planned.plan(fields).description, **plain}).config == wanted


@pytest.mark.parametrize("size", ["small", "large", "xl"])
def test_t5_is_what_an_import_makes(size):
    ours = paper.ARCHITECTURES[f"google/t5-v1_1-{size}"]
    fields = {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": 32_128,
        "d_model": ours["d_model"],
        "num_layers": ours["num_layers"],
        "num_decoder_layers": ours["num_decoder_layers"],
        "num_heads": ours["num_heads"],
        "d_kv": 64,
        "d_ff": ours["d_ff"],
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
        "is_encoder_decoder": True,
    }
    assert models.build(planned.plan(fields).description) == models.build(ours)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*2*b_*b.py")) + sorted(CONFIGS.glob("t5_*")))
def test_configs_name_what_they_plan(path):
    config = runpy.run_path(str(path))["get_config"]()
    planned_pair = subject.load(config)
    for role, model in planned_pair.models.items():
        assert model == models.build(config.models[role].to_dict())
        kinds = {"dtype": "bfloat16", "param_dtype": "bfloat16"}
        assert config.models[role].to_dict() == {**paper.ARCHITECTURES[config.pair[role]], **kinds}
    assert planned_pair.setting.draft_length == (5 if "t5" in path.name else 1)


def test_flat_keys_are_those_of_imports():
    assert "decoder/cross_attention_0/key/weight" in dict(leaves(shapes("google/t5-v1_1-small")))


@pytest.mark.parametrize(
    ("task", "validation"), [("wmt14", 3_000), ("xsum", 11_305), ("cnn_dailymail", 13_368)]
)
def test_t5_is_measured_as_the_paper_is_said_to(task, validation):
    section = runpy.run_path(str(CONFIGS / "t5_small_large.py"))["get_config"](task).evaluate
    assert section.splits.validation == validation
    assert section.timing.to_dict() == {"num_examples": 500, "trials": 3}


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("gemma2_2b_9b", "few_shot"),
        ("gemma2_2b_27b", "few_shot"),
        ("t5_small_large", "t5"),
        ("t5_small_xl", "t5"),
    ],
)
def test_a_task_makes_it_a_sweep(name, form, monkeypatch):
    monkeypatch.setattr(sandbox, "require", lambda: None)
    get_config = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]
    assert "evaluate" not in get_config()
    for task in paper.TASKS[form]:
        config = get_config(task)
        made = tasks.make(config.task)
        assert made.name == task
        run._check(config.evaluate.to_dict())
    found = expand(config.evaluate.settings)
    temperatures, lengths = {
        "few_shot": ({0.0, 0.5, 1.0}, {1}),
        "t5": ({0.0, 0.1, 0.5, 1.0}, {3, 5, 7}),
    }[form]
    assert {s.temperature for s in found} == temperatures
    assert {s.draft_length for s in found if s.rule == "token_v3"} == lengths
    assert config.plan.setting.draft_length in lengths
    with pytest.raises(UserError, match="unknown task 'chess'; choose one of: wmt14"):
        get_config("chess")
