"""Pairs on a mesh: read where they belong, and answering as on one device by every method."""

import jax
import numpy as np
import pytest

import speccascade
from speccascade import pairs
from speccascade.errors import UserError
from speccascade.inference import generate
from speccascade.sharding import REPLICATED, Layout, from_config, make_mesh
from tests import tiny_pair
from tests.importing import tiny_checkpoint

PROMPTS = [tiny_pair.PROMPT, "1", "2"]
METHODS = [  # a sequence cascade decodes by the drafter alone
    {"rule": "token_v3", "alpha": 0.3, "draft_length": 2, "expert_top_p": 0.9},
    {"method": "autoregressive_expert"},
    {"method": "token_cascade", "rule": "chow", "alpha": 0.3},
    {"method": "sequence_cascade", "threshold": -2.0},
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("pair"))
    pairs.export(tiny_pair.make(), directory, {})
    return directory


def check_laid_out(pair, layout):
    assert pair.layout == layout
    for role in pairs.ROLES:
        model = pair.models[role]
        where = layout.of(role, model).params(model)
        same = jax.tree.map(lambda x, s: x.sharding == s, pair.params[role], where)
        assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("how", METHODS, ids=lambda how: how.get("method", "speculative"))
def test_every_method_answers_as_on_one_device(exported, how):
    layout = Layout(make_mesh({"data": 2, "model": 2}, jax.devices()[:4]))
    how = {**how, "temperature": 1.0, "max_new_tokens": 6}
    pair = pairs.load(exported, layout)
    check_laid_out(pair, layout)
    assert pair.params["expert"]["mlp_0"]["up"]["weight"].sharding.shard_shape((16, 16)) == (8, 16)
    found = speccascade.generate_text(pair, PROMPTS, **how)
    expected = speccascade.generate_text(pairs.load(exported), PROMPTS, **how)
    assert [f.tokens for f in found] == [e.tokens for e in expected]
    assert pair.hash == pairs.load(exported).hash


def test_checkpoints_are_read_where_they_belong(tmp_path):
    source = str(tiny_checkpoint.write(tmp_path / "hf"))
    both = {"drafter": source, "expert": source}
    layout = Layout(make_mesh({"data": 2, "model": 2}, jax.devices()[:4]))
    pair = pairs.load(both, layout)
    check_laid_out(pair, layout)
    whole = pairs.load(both)
    for mine, theirs in zip(
        jax.tree.leaves(pair.params), jax.tree.leaves(whole.params), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_scripts_take_the_mesh_of_a_config(exported, tmp_path):
    (tmp_path / "prompts").write_text("\n".join(PROMPTS))  # the shape of the tests above
    config = tiny_pair.get_config(exported)
    options = {"prompt": None, "prompts_file": str(tmp_path / "prompts"), "knobs": "{}"}
    options |= {"fields": METHODS[1], "max_new_tokens": 6}
    one = generate.from_flags(config, **options)
    config.mesh = {"data": 1, "model": -1, "drafter": "replicated"}
    assert generate.from_flags(config, **options) == one


def test_configs():
    assert from_config(None) is None
    layout = from_config({"data": 2, "model": 4, "drafter": "replicated"})
    assert layout == Layout(make_mesh({"data": 2, "model": 4}), drafter=REPLICATED)
    with pytest.raises(UserError, match="mesh.drafter='whole' is unknown; choose one of: sharded,"):
        from_config({"model": 8, "drafter": "whole"})
