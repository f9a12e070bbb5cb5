import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import models
from speccascade.errors import UserError
from speccascade.models.shrink import shrink
from tests import random_params
from tests.jitted import forward

SMALL = dict(vocab_size=23, d_model=8, num_heads=2, head_dim=4, d_ff=12)
DECODER_ONLY = dict(
    SMALL,
    num_layers=3,
    num_kv_heads=1,
    window=3,
    window_pattern=(True, False, False),
    logit_softcap=5.0,
)
T5 = dict(SMALL, family="encoder_decoder", num_layers=2, num_decoder_layers=3)
FAMILIES = {
    "decoder_only": dict(DECODER_ONLY, tie_embeddings=True),
    "decoder_only_untied": dict(DECODER_ONLY, tie_embeddings=False),
    "t5_tied": dict(T5, tie_embeddings=True),
    "t5": dict(T5, tie_embeddings=False),
}
TOKENS = jnp.arange(24, dtype=jnp.int32).reshape(2, 12) % 23
LENGTHS = jnp.array([3, 5])
FEATURES = jax.jit(lambda model, *args: model.features(*args), static_argnums=0)


@pytest.fixture(scope="module", params=FAMILIES)
def expert(request):
    model = models.build(FAMILIES[request.param])
    return model, random_params.of(model)


def test_all_layers_and_all_ids_are_the_expert_itself(expert):
    model, params = expert
    small, own = shrink(model, params, layers=range(3))
    assert not small.config.tie_embeddings and own["embedding"] is params["embedding"]
    want = forward(model, params, TOKENS, LENGTHS)
    np.testing.assert_allclose(forward(small, own, TOKENS, LENGTHS), want, atol=1e-5)


def test_a_smaller_head_scores_its_ids_as_the_expert_does(expert):
    model, params = expert
    ids = np.array([1, 4, 22], np.int32)
    small, own = shrink(model, params, layers=range(3), head_ids=ids)
    want = np.asarray(forward(model, params, TOKENS, LENGTHS))
    got = np.asarray(forward(small, own, TOKENS, LENGTHS))
    answer = np.arange(12) >= np.asarray(LENGTHS)[:, None] - 1
    np.testing.assert_allclose(got[answer][:, ids], want[answer][:, ids], atol=1e-5)
    others = np.delete(np.arange(23), ids)
    assert np.all(got[answer][:, others] == -np.inf)
    # What training reads of both.
    features = FEATURES(small, own, TOKENS, LENGTHS)
    scores = np.asarray(small.head_logits(own, features))
    np.testing.assert_allclose(scores[answer], got[answer][:, ids], atol=1e-6)
    scores = model.head_logits(params, FEATURES(model, params, TOKENS, LENGTHS), ids)
    np.testing.assert_allclose(np.asarray(scores)[answer], want[answer][:, ids], atol=1e-5)


def test_the_layers_that_are_kept_keep_their_weights_and_windows():
    model = models.build(FAMILIES["decoder_only"])
    params = random_params.of(model)
    small, own = shrink(model, params, layers=(2, 0))
    assert [small.config.layer_window(i) for i in range(2)] == [None, 3]
    for new, old in enumerate((2, 0)):
        for part in ("attention", "attention_norm", "mlp", "mlp_norm"):
            jax.tree.map(
                np.testing.assert_array_equal, own[f"{part}_{new}"], params[f"{part}_{old}"]
            )
    assert "attention_2" not in own


def test_an_encoder_may_be_shallower_too():
    model = models.build(FAMILIES["t5"])
    params = random_params.of(model)
    small, own = shrink(model, params, layers=(0,), encoder_layers=(1,))
    assert small.config.num_layers == small.config.num_decoder_layers == 1
    old = params["encoder"]["mlp_1"]["up"]["weight"]
    np.testing.assert_array_equal(own["encoder"]["mlp_0"]["up"]["weight"], old)
    shapes = jax.eval_shape(small.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, own)


@pytest.mark.parametrize("layers", [(), (0, 0), (3,), (-1,)])
def test_layers_that_the_expert_lacks(layers):
    model = models.build(FAMILIES["decoder_only"])
    with pytest.raises(UserError, match=r"layers of the expert, each once: it has 0 to 2"):
        shrink(model, random_params.of(model), layers=layers)


def test_only_encoder_decoders_have_encoder_layers():
    model = models.build(FAMILIES["decoder_only"])
    with pytest.raises(UserError, match="encoder_layers is for encoder-decoders"):
        shrink(model, random_params.of(model), layers=(0,), encoder_layers=(0,))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head_size": 3, "tie_embeddings": True}, "head_size=3 needs tie_embeddings=False"),
        ({"head_size": 24, "tie_embeddings": False}, "above the vocabulary of 23 tokens"),
        ({"head_size": 0, "tie_embeddings": False}, "head_size=0 must be at least 1"),
    ],
)
@pytest.mark.parametrize("family", [DECODER_ONLY, T5])
def test_heads_that_cannot_be(family, fields, message):
    with pytest.raises(UserError, match=message):
        models.build({**family, **fields})
