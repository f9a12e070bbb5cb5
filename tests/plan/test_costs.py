"""Operations and bytes of a pass against counts by hand."""

import jax
import numpy as np
import pytest

from speccascade import models
from speccascade.evaluate import compute
from speccascade.models import costs, memory
from speccascade.models.costs import Cost, Exchange
from speccascade.plan import subject
from tests.plan import tiny


def whole(config, tokens, batch=4, slots=24):
    """Returns the cost of a pass on one device."""
    model = models.build(config)
    params = jax.eval_shape(model.init, jax.random.key(0))
    cache = jax.eval_shape(lambda: model.init_cache(batch, slots))
    return costs.forward(model, params, cache, tokens)


def test_a_decoder_only_pass_on_one_device():
    matrices = 2 * (2 * 64 * 32 + 2 * 32 * 32 + 3 * 48 * 32) + 520 * 32
    norms = 5 * 32
    slots = 2 * 2 * 2 * 16  # numbers of one slot of a row: keys and values, layers, heads, width
    cost = whole(tiny.MODEL, tokens=3)
    attention = 2 * 2 * (4 * 16) * 24  # scores and mixing, layers, heads: per token
    assert cost.ops == 4 * 3 * (2 * matrices + 2 * attention)
    assert cost.hbm_bytes == 2 * (matrices + norms) + 2 * 4 * slots * (24 + 3)
    assert cost.exchanges == ()


def test_int8_weights_take_a_byte_and_a_scale_per_channel():
    matrices = 2 * (2 * 64 * 32 + 2 * 32 * 32 + 3 * 48 * 32) + 520 * 32
    channels = 2 * (64 + 32 + 2 * 32 + 2 * 48 + 32) + 520
    plain, stored = (whole({**tiny.MODEL, "weight_dtype": kept}, 1) for kept in (None, "int8"))
    assert plain.hbm_bytes - stored.hbm_bytes == matrices - 4 * channels
    assert plain.ops == stored.ops


ROUTED = {**tiny.MODEL, "routing": {"branches": 8, "chosen": 2, "d_ff": 24}}


def test_a_pass_reads_the_branches_that_are_chosen_and_computes_no_others():
    others = 2 * (2 * 64 * 32 + 2 * 32 * 32 + 8 * 32) + 520 * 32  # a router per layer
    norms, branch = 5 * 32, 2 * 3 * 24 * 32  # one in both layers
    few, many = whole(ROUTED, tokens=1), whole(ROUTED, tokens=200)
    for cost, tokens in ((few, 1), (many, 200)):
        rows = 4 * tokens
        attention = 2 * 2 * (4 * 16) * 24
        assert cost.ops == rows * (2 * (others + 2 * branch) + 2 * attention)
        # A token leaves each branch alone with probability 3/4.
        read = 8 * (1 - 0.75**rows)
        caches = 2 * 4 * 2 * 2 * 2 * 16 * (24 + tokens)
        assert cost.hbm_bytes == pytest.approx(2 * (others + norms + read * branch) + caches)
    model = models.build(ROUTED)
    per_token = compute.multiply_adds(model, models.shapes(model))
    assert per_token == others + 2 * branch
    text = costs.scoring(model, np.array([0]), np.array([5]), np.array([5]))
    pairs = 2 * 4 * 4 * 16 * 15  # in both layers
    assert text == 2 * 5 * per_token + pairs


def test_branches_of_int8_are_counted_once():
    plain, stored = (whole({**ROUTED, "weight_dtype": kept}, 2) for kept in (None, "int8"))
    assert stored.ops == plain.ops and stored.hbm_bytes < plain.hbm_bytes


def test_a_mesh_cuts_branches_and_sums_once_in_a_layer():
    inputs = subject.load(tiny.config(ROUTED)).inputs(tiny.fake())
    model, params = inputs.decoder.expert, inputs.params["expert"]
    assert params["mlp_0"]["gate"].sharding.shard_shape((8, 24, 32)) == (8, 12, 32)
    assert params["mlp_0"]["down"].sharding.shard_shape((8, 32, 24)) == (8, 32, 12)
    cost = costs.forward(model, params, inputs.state.expert, 4)
    assert cost.exchanges == (Exchange(2 * 4 * 32 * 2, ways=2),) * 5


def test_a_t5_step_reads_neither_encoder_nor_embedding():
    attention = 4 * 64 * 32
    decoder = 3 * (attention + attention // 2 + 3 * 48 * 32)  # cross-attention: no keys, values
    head = 520 * 32
    others = (3 * 3 + 1) * 32 + 32 * 4  # norms, and the decoder's table of relative positions
    cost = whole(tiny.T5, tokens=1)
    caches = 2 * 4 * 2 * 3 * 64 * (24 + 24)
    written = 2 * 4 * 2 * 3 * 64 * 2
    assert cost.hbm_bytes == 2 * (decoder + head + others) + caches + written


def test_sharded_products_exchange_what_they_sum():
    inputs = subject.load(tiny.config()).inputs(tiny.fake())
    model, params = inputs.decoder.expert, inputs.params["expert"]
    cost = costs.forward(model, params, inputs.state.expert, 4)
    # Two rows on a device: outputs of attention and feed-forward in both layers, and the embedding.
    assert cost.exchanges == (Exchange(2 * 4 * 32 * 2, ways=2),) * 5
    assert cost.ici_bytes == 5 * 2 * 4 * 32 * 2
    matrices = 2 * (2 * 64 * 32 + 2 * 32 * 32 + 3 * 48 * 32) + 520 * 32
    attention = 2 * 2 * 2 * 64 * (10 + 9 + 4)
    assert cost.ops == 2 * 4 * (2 * matrices + attention) / 2


def test_costs_add_and_repeat():
    one = Cost(1, 2, (Exchange(8, 4),))
    assert one + one == one * 2 == Cost(2, 4, (Exchange(8, 4),) * 2)
    assert one.ici_bytes == 12


def test_verification_streams_each_logit_three_times():
    # Written once and read twice at 4 and 3 positions of 2 rows, and once at one of each model's.
    assert costs.verification(2, 100, 4, 3).hbm_bytes == 4 * 2 * 100 * (3 * 7 + 2)


@pytest.mark.parametrize("model", [tiny.MODEL, tiny.T5])
def test_caches_and_weights_divide_over_the_mesh(model):
    inputs = subject.load(tiny.config(model)).inputs(tiny.fake())
    whole_model = jax.eval_shape(inputs.decoder.expert.init, jax.random.key(0))
    mine, all_of_it = memory.size(inputs.params["expert"]), memory.size(whole_model)
    replicated = sum(x.size * 2 for x in jax.tree.leaves(whole_model) if x.ndim == 1)
    assert mine == (all_of_it - replicated) / 2 + replicated
    layer = jax.tree.leaves(inputs.state.expert)[0]
    assert memory.local(layer) == (2, layer.shape[1] // 2, *layer.shape[2:])
