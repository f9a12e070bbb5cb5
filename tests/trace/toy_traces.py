"""A comparison of a tiny pair under a few rules, made once."""

import dataclasses
import functools

import jax

from speccascade.inference.reading import setting
from speccascade.pairs import Pair
from speccascade.trace import Comparison, trace_prompt
from tests import random_params, tiny_pair

EVIL = "</title><script>alert('é & \"$x\"')</script>\x1b[31m"
SETTINGS = [
    {"rule": "spec"},
    {"rule": "token_v3", "alpha": 0.9},
    {"rule": "opt", "alpha": 0.0, "verifier": "block"},
    {"rule": "bild", "alpha": 3.0, "fallback": 0.3, "expert_top_p": 0.9, "temperature": 0.7},
]
ROOM = 24


def settings() -> list:
    """Returns the settings of the comparison."""
    return [setting({"draft_length": 3, "temperature": 1.0, "seed": 0, **s}) for s in SETTINGS]


@functools.cache
def pair() -> Pair:
    """Returns the tiny expert with a drafter that often agrees with it."""
    plain = tiny_pair.make(scale=1.5)
    noisy = random_params.near(jax.device_get(plain.params["expert"]), 0.2, seed=24)
    params = {**plain.params, "drafter": noisy}
    return dataclasses.replace(
        plain, models={"drafter": plain.expert, "expert": plain.expert}, params=params
    )


@functools.cache
def comparison() -> Comparison:
    """Returns how the pair answers `EVIL` under `SETTINGS`."""
    return trace_prompt(pair(), EVIL, settings(), max_new_tokens=ROOM)
