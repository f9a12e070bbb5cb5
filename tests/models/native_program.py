"""Run by test_native.py: compares what native products compute with what XLA does."""

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import models
from speccascade.models import native, quantisation
from speccascade.runtime import native as compiling
from speccascade.workdir import provenance
from tests import random_params

MODEL = {
    "family": "decoder_only",
    **{"vocab_size": 331, "d_model": 72, "num_layers": 1, "num_heads": 4, "num_kv_heads": 2},
    **{"head_dim": 18, "d_ff": 100, "tie_embeddings": True},
}


def steps(model, params):
    """Returns logits of a prompt read three tokens at a time, `[2, 9, V]`."""
    tokens = np.arange(18, dtype=np.int32).reshape(2, 9) * 7 % 331
    cache = model.init_cache(2, 16)
    apply = jax.jit(model.apply)
    found = []
    for at in range(0, 9, 3):
        positions = np.broadcast_to(np.arange(at, at + 3), (2, 3))
        logits, cache = apply(params, tokens[:, at : at + 3], positions, cache)
        found.append(logits)
    return np.concatenate(found, axis=1)


def subjects():
    """Yields a name, a model and its parameters: in float32, and as int8 in bfloat16."""
    model = models.build({**MODEL, "dtype": "float32"})
    params = random_params.of(model)
    yield "float32", model, params
    model = models.build({**MODEL, "dtype": "bfloat16"})
    yield "int8", *quantisation.quantise(model, params)


before = {name: steps(model, params) for name, model, params in subjects()}
plain = provenance.numerics()
compiling.enable()
compiling.enable()  # a second time nothing is done

rng, MOST = np.random.default_rng(0), max(map(max, native.ROWS.values()))
SOME = (1, 3, 6, 7, MOST)
size, out = 131, 70  # neither whole lanes nor whole tiles
exact = rng.integers(-9, 9, (MOST, size)).astype(np.float32)
for dtype in (jnp.float32, jnp.bfloat16, jnp.int8):
    weight = rng.integers(-99, 99, (out, size))
    for rows in SOME:
        found = jax.jit(native.product)(exact[:rows], jnp.asarray(weight, dtype))
        np.testing.assert_array_equal(found, exact[:rows] @ weight.T)  # whole numbers
for misfit in (weight[:, :-1], weight[None], weight[0]):  # nothing is read beyond its end
    try:
        jax.block_until_ready(native.product(exact[:2], jnp.asarray(misfit, jnp.int8)))
    except jax.errors.JaxRuntimeError as error:
        assert "as long as those of the weights" in str(error)
    else:
        raise AssertionError(misfit.shape)
print("products agree")

x = rng.normal(size=(MOST, size)).astype(np.float32)
weight = rng.normal(size=(out, size)).astype(np.float32)
whole = jax.jit(native.product)(x, weight)
np.testing.assert_allclose(whole, x @ weight.T, rtol=1e-4, atol=1e-5)
for rows in SOME:
    np.testing.assert_array_equal(jax.jit(native.product)(x[:rows], weight), whole[:rows])
print("rows agree")

for name, model, params in subjects():
    text = jax.jit(model.apply).lower(
        params, np.zeros((2, 3), np.int32), np.zeros((2, 3), np.int32), model.init_cache(2, 16)
    )
    assert text.as_text().count("speccascade_product") >= 8, name  # seven a layer, and the head
    tolerance = 1e-4 if name == "float32" else 0.05
    jax.clear_caches()
    np.testing.assert_allclose(
        steps(model, params), before[name], rtol=tolerance, atol=tolerance, err_msg=name
    )
assert provenance.numerics.__wrapped__() == plain.replace(",", " with native products,", 1)
print("models agree")
