"""What a pass takes of a device's memory, and what is refused before it is taken."""

import jax
import jax.numpy as jnp
import pytest

from speccascade import models
from speccascade.errors import UserError
from speccascade.models import memory
from speccascade.sharding import chips, host_memory
from tests import smallest_model

DEVICE = jax.local_devices()[0]


@pytest.mark.parametrize("more", [{}, {"window": 3, "num_layers": 2}])
def test_a_pass_takes_the_bytes_of_its_cache_and_logits(more):
    model = models.build({**smallest_model.MODEL, **more})
    params = models.shapes(model)
    cache = model.init_cache(3, 24, 2)
    tokens = jnp.zeros((3, 2), jnp.int32)
    logits, _ = jax.eval_shape(model.apply, params, tokens, tokens + jnp.arange(2), cache)
    held = sum(x.nbytes for x in jax.tree.leaves(cache)) + logits.size * logits.dtype.itemsize
    assert memory.of_pass(model, 3, 2, 24) == held


def test_what_does_not_fit_is_refused_with_both_sizes():
    free = chips.free(DEVICE)
    assert 0 < free <= chips.memory(DEVICE)
    memory.check("this", free // 2, "go on")
    with pytest.raises(UserError, match="^that needs more than .* GiB for .* GiB free; lower it$"):
        memory.check("that", 2 * free, "lower it")


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    whole = host_memory.total()
    monkeypatch.setattr(host_memory, "_GROUP", tmp_path)
    assert host_memory.total() == whole  # no such files
    for name, text in {
        "memory.max": "1000\n",
        "memory.current": "900\n",
        "memory.stat": "anon 500\ninactive_file 300\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert (host_memory.total(), host_memory.free()) == (1000, 400)
    (tmp_path / "memory.max").write_text("max\n")
    assert host_memory.total() == whole and host_memory.free() > 1000
    monkeypatch.setattr(host_memory, "_MACHINE", tmp_path / "none")
    assert host_memory.free() == whole
