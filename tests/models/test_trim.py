import numpy as np
import pytest

from speccascade import models
from speccascade.errors import UserError
from speccascade.models import trim
from tests import random_params
from tests.jitted import forward

SIZES = {
    "decoder_only": {
        "vocab_size": 40,
        "d_model": 8,
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 1,
        "head_dim": 4,
        "d_ff": 16,
    },
    "encoder_decoder": {
        "vocab_size": 40,
        "d_model": 8,
        "num_layers": 1,
        "num_decoder_layers": 1,
        "num_heads": 2,
        "head_dim": 4,
        "d_ff": 16,
    },
}



@pytest.mark.parametrize("family", SIZES)
@pytest.mark.parametrize("tied", [True, False])
def test_the_ids_that_are_left_score_as_before(family, tied):
    model = models.build({"family": family, **SIZES[family], "tie_embeddings": tied})
    params = random_params.of(model)
    smaller, cut = trim.to_vocabulary(model, params, 33)
    assert smaller.vocab_size == 33
    assert models.describe(smaller) == {**models.describe(model), "vocab_size": 33}
    tokens, prompt = np.array([[3, 32, 0, 7]], np.int32), np.array([2], np.int32)
    np.testing.assert_allclose(
        forward(smaller, cut, tokens, prompt),
        forward(model, params, tokens, prompt)[..., :33],
        rtol=1e-5,
        atol=1e-6,
    )


def test_nothing_to_cut():
    model = models.build(SIZES["decoder_only"])
    params = random_params.of(model)
    same, untouched = trim.to_vocabulary(model, params, 40)
    assert same is model and untouched is params
    with pytest.raises(UserError, match="41 token ids and the model only 40"):
        trim.to_vocabulary(model, params, 41)


def test_parameters_that_would_not_fit():
    model = models.build(SIZES["decoder_only"])
    params = {**random_params.of(model), "other": np.zeros(40)}
    with pytest.raises(UserError, match="padding cannot be cut away"):
        trim.to_vocabulary(model, params, 33)
