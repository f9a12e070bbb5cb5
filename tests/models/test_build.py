"""Descriptions of models, and what is wrong with some."""

import json

import jax
import jax.numpy as jnp
import ml_collections
import pytest

from speccascade import models
from speccascade.errors import UserError

CONFIG = {
    "vocab_size": 11,
    "d_model": 8,
    "num_layers": 3,
    "num_heads": 2,
    "num_kv_heads": 1,
    "head_dim": 4,
    "d_ff": 8,
}


def test_a_description_makes_the_same_model():
    model = models.build({**CONFIG, "window": 4, "window_pattern": [True, False]})
    text = json.dumps(models.describe(model))
    again = models.build(json.loads(text))
    assert again == model and hash(again) == hash(model)
    assert again.vocab_size == 11
    assert [model.config.layer_window(i) for i in range(3)] == [4, None, 4]
    assert models.describe(model)["family"] == "decoder_only"


def test_parameters_have_the_dtype_asked_for():
    model = models.build({**CONFIG, "param_dtype": "bfloat16", "dtype": "bfloat16"})
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    cache = jax.eval_shape(lambda: model.init_cache(3, 20))
    assert {(x.shape, x.dtype) for x in jax.tree.leaves(cache)} == {
        ((3, 1, 20, 4), jnp.dtype("bfloat16"))
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "rnn"}, "model family 'rnn' is unknown; choose one of: decoder_only"),
        ({"width": 3}, "unknown fields width; known: vocab_size, "),
        ({"d_ff": None}, "model config lacks d_ff"),
        ({"num_heads": 3, "num_kv_heads": 2}, "num_heads=3 must be a multiple of num_kv_heads=2"),
        ({"head_dim": 5}, "head_dim=5 must be even"),
        ({"activation": "relu6"}, "activation='relu6' is unknown; choose one of: silu, gelu"),
        ({"num_layers": 0}, "num_layers=0 must be at least 1"),
        ({"num_kv_heads": 0}, "num_kv_heads=0 must be at least 1"),
        ({"window": 0}, "window=0 must be at least 1"),
        ({"window_pattern": ()}, "window_pattern is empty"),
        ({"dtype": "float33"}, "dtype='float33' is unknown; choose one of: float32, bfloat16"),
    ],
)
def test_a_bad_description_is_one_clear_line(change, message):
    config = {key: value for key, value in {**CONFIG, **change}.items() if value is not None}
    with pytest.raises(UserError, match="^[^\n]+$") as caught:
        models.build(config)
    assert message in str(caught.value)


VALUES = [None, "x", "16", [], [1], {}, {"x": 1}, True, -1, 0, 0.5, 10**12, float("nan")]
DESCRIPTIONS = [
    {
        **CONFIG,
        "rope_scaling": {"kind": "linear", "factor": 2.0},
        "window": 4,
        "window_pattern": [True, False],
    },
    {
        **{name: size for name, size in CONFIG.items() if name != "num_kv_heads"},
        "family": "encoder_decoder",
        "num_decoder_layers": 2,
    },
]


def test_a_config_describes_a_model_as_a_mapping_does():
    config = ml_collections.ConfigDict(DESCRIPTIONS[0])
    wanted = models.build(DESCRIPTIONS[0])
    assert models.build(config) == models.build({**config}) == wanted


@pytest.mark.parametrize("described", DESCRIPTIONS)
def test_every_field_may_hold_anything(described):
    whole = models.describe(models.build(described))
    changes = [{name: value} for name in whole for value in VALUES]
    for name in whole["rope_scaling"] if "rope_scaling" in whole else ():
        changes += [{"rope_scaling": {**whole["rope_scaling"], name: value}} for value in VALUES]
    for change in changes:
        try:
            model = models.build({**whole, **change}, "model.json")
        except UserError as error:
            assert next(iter(change)) in str(error), (change, str(error))
        else:
            assert models.build(json.loads(json.dumps(models.describe(model)))) == model
