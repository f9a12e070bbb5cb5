"""Where parameters and caches lie: by the tables, for every parameter of both families."""

import jax
import pytest
from jax.sharding import PartitionSpec as P

from speccascade.errors import UserError
from speccascade.sharding import REPLICATED, Layout, Rules, make_mesh
from speccascade.sharding.layout import flat_key, loading
from tests.decode import toys


def layout(data=2, model=4, **rules) -> Layout:
    devices = jax.devices()[: data * model]
    return Layout(make_mesh({"data": data, "model": model}, devices), **rules)


def specs(placement, model) -> dict[str, P]:
    paths, _ = jax.tree_util.tree_flatten_with_path(placement.params(model))
    return {flat_key(path): sharding.spec for path, sharding in paths}


def test_a_decoder_only_model_is_cut_at_its_inner_axes():
    model = toys.transformer(1, qkv_bias=True, mlp_bias=True, qk_norm=True)
    found = specs(layout().of("expert", model), model)
    outputs, inputs, whole = P("model", None), P(None, "model"), P(None)
    expected = {
        "embedding": outputs,
        "head/weight": outputs,
        "attention_0/query/weight": outputs,
        "attention_0/query/bias": P("model"),
        # Two key-value heads do not divide over four devices.
        "attention_0/key/weight": P(None, None),
        "attention_0/key/bias": whole,
        "attention_0/output/weight": inputs,
        "attention_0/query_norm/scale": whole,
        "mlp_0/gate/weight": outputs,
        "mlp_0/up/bias": P("model"),
        "mlp_0/down/weight": inputs,
        "mlp_0/down/bias": whole,
        "mlp_norm_0/scale": whole,
        "final_norm/scale": whole,
    }
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("family", toys.PAIRS)
def test_every_parameter_and_cache_has_names_for_its_axes(family):
    for model in (toys.PAIRS[family].drafter, toys.PAIRS[family].expert):
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
            assert len(model.param_axes(flat_key(path))) == leaf.ndim
        cache = jax.eval_shape(lambda model=model: model.init_cache(4, 8))
        names = model.cache_axes(cache)
        ranks = jax.tree.map(lambda n, x: len(n) == x.ndim, names, cache)
        assert all(jax.tree.leaves(ranks))


def test_a_drafter_may_be_whole_on_every_device():
    model = toys.transformer(1)
    both = layout(drafter=REPLICATED)
    assert all(not any(spec) for spec in specs(both.of("drafter", model), model).values())
    assert any(any(spec) for spec in specs(both.of("expert", model), model).values())


def test_what_does_not_divide_is_replicated_and_told():
    model = toys.transformer(1, num_heads=6, num_kv_heads=3, vocab_size=30)
    placement = layout().of("expert", model)
    found = specs(placement, model)
    # 6 heads of 4 are 24 numbers, which four devices could share: not within a head.
    assert found["attention_0/query/weight"] == P(None, None)
    assert found["embedding"] == P(None, None)
    assert found["mlp_0/up/weight"] == P("model", None)
    whole = "do not divide over 4 devices: 2 parameters lie whole"
    expected = [f"30 vocab {whole}", f"6 heads {whole}", f"3 kv_heads {whole}"]
    assert sorted(map(str, placement.unequal(model))) == sorted(expected)
    assert layout(model=1).of("expert", model).unequal(model) == []


def test_fsdp_cuts_weights_along_the_stream():
    model = toys.transformer(1)
    mesh = make_mesh({"data": 1, "fsdp": 2, "model": 4})
    found = specs(Layout(mesh).of("expert", model), model)
    assert found["mlp_0/up/weight"] == P("model", "fsdp")
    assert found["mlp_0/down/weight"] == P("fsdp", "model")


def test_reading_knows_no_model_yet():
    model = toys.transformer(1)
    to = loading(layout(), "expert", model.param_axes)
    assert to("mlp_0/up/weight", (24, 16)).spec == P("model", None)


def test_two_axes_of_one_array_on_one_mesh_axis_are_refused():
    model = toys.transformer(1)
    with pytest.raises(UserError, match="logical axes kv_heads and embed of one array"):
        layout(expert=Rules(embed="model")).of("expert", model).params(model)


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="no rule for logical axis 'head'; known: batch, vocab"):
        Rules().spec(P("batch", "head"))


def test_rows_lie_on_one_axis_for_both_models():
    with pytest.raises(UserError, match="rows lie on mesh axis 'data' and the drafter's on None"):
        layout(drafter=Rules(batch=None))


def test_a_layout_is_a_value():
    assert layout() == layout() and hash(layout()) == hash(layout())
    assert layout() != layout(drafter=REPLICATED)
