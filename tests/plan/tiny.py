"""A pair of a few thousand parameters as a plan's config, and slices made of fake CPU devices."""

import jax
import ml_collections

from speccascade.plan.topology import Topology
from speccascade.sharding.chips import CHIPS

MODEL = {
    "family": "decoder_only",
    "vocab_size": 520,
    "d_model": 32,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 16,
    "d_ff": 48,
    "dtype": "bfloat16",
    "param_dtype": "bfloat16",
}
T5 = {
    "family": "encoder_decoder",
    "vocab_size": 520,
    "d_model": 32,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "head_dim": 16,
    "d_ff": 48,
    "dtype": "bfloat16",
    "param_dtype": "bfloat16",
}


def config(model=MODEL, mesh=None, **plan):
    """Returns a config whose drafter has one layer less than its expert."""
    drafter = {**model, "num_layers": model["num_layers"] - 1}
    return ml_collections.ConfigDict(
        {
            "models": {"drafter": drafter, "expert": dict(model)},
            "mesh": mesh or {"data": -1, "model": 2},
            "plan": {
                "batch_size": 4,
                "prompt_length": 10,
                "max_new_tokens": 9,
                "setting": {"rule": "token_v3", "alpha": 0.3, "draft_length": 3},
                **plan,
            },
        }
    )


def fake(name="v5e:2x2"):
    """Returns a slice whose devices are the CPU's: for arithmetic, not for compiling."""
    generation, _, grid = name.partition(":")
    sides = tuple(map(int, grid.split("x")))
    return Topology(name, CHIPS[generation], sides, jax.devices()[: sides[0] * sides[1]])
