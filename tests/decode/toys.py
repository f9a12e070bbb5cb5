"""Tiny pairs of models, and batches that mix every rule, for the tests of the decode engine.

A compilation costs seconds, a decode milliseconds. So the transformer tests share few programs: one
batch shape, every rule in one tuple, and knobs, prompts, temperatures and limits as data.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from speccascade import models, rules
from speccascade.decode import Decoder, ModelDrafter, Rows, make_rows, stop_table
from speccascade.sampling import Truncation
from tests import random_params, toy_head

# ---- pairs of models ----

VOCAB, BATCH, SLOTS, ROOM, SIZE = 32, 64, 12, 20, 3
NAMES = tuple(rules.RULES)
RANGES = {  # where each rule both defers and does not
    "chow": (0.2, 0.9),
    "chowlog": (0.5, 3.0),
    "diff": (-0.3, 0.3),
    "opt": (-0.5, 0.5),
    "optlog": (-2.0, 1.0),
    "lossy": (0.0, 0.9),
    "lenient": (0.0, 0.9),
    "bild": (2.0, 5.0),
}
FALLBACK = 0.45


def transformer(layers: int, **options) -> models.Model:
    """Makes a transformer with grouped queries and sliding windows shorter than the texts."""
    return models.build(
        {
            "vocab_size": VOCAB,
            "d_model": 16,
            "num_layers": layers,
            "num_heads": 4,
            "num_kv_heads": 2,
            "head_dim": 4,
            "d_ff": 24,
            "tie_embeddings": False,
            "window": 5,
            "window_pattern": (True, False),
            **options,
        }
    )


def encoder_decoder(layers: int, **options) -> models.Model:
    """Makes a T5 whose buckets of positions end before its texts do."""
    return models.build(
        {
            "family": "encoder_decoder",
            "vocab_size": VOCAB,
            "d_model": 16,
            "num_layers": layers,
            "num_decoder_layers": layers,
            "num_heads": 3,
            "head_dim": 6,
            "d_ff": 24,
            "num_buckets": 8,
            "max_distance": 6,
            "decoder_start_id": 2,
            **options,
        }
    )


@dataclasses.dataclass(frozen=True)
class Pair:
    """A drafter and an expert of one family, of different sizes.

    Attributes:
      drafter: the smaller model.
      expert: the larger one.
      horizon: positions farther away than this look alike or are not seen.
      scale: of the parameters, beyond those of `init`.
      noise: by which the drafter of `close_params` differs from the expert.
      seed: of the parameters.
    """

    drafter: models.Model
    expert: models.Model
    horizon: int
    scale: float = 2.0
    noise: float = 0.05
    seed: int = 1

    @functools.cached_property
    def params(self) -> dict[str, Any]:
        """Parameters of two models that know nothing of each other."""
        return {
            "drafter": random_params.scaled(self.drafter, self.seed, self.scale),
            "expert": random_params.scaled(self.expert, self.seed + 1, self.scale),
        }

    @functools.cached_property
    def close_params(self) -> dict[str, Any]:
        """Parameters of the expert and of a drafter of its shape that often agrees with it."""
        expert, rng = jax.device_get(self.params["expert"]), np.random.default_rng(3)

        def moved(x):
            return x + np.float32(self.noise) * rng.normal(size=x.shape).astype(np.float32)

        return {"drafter": jax.tree.map(moved, expert), "expert": expert}

    def decoder(self, verifier: str) -> Decoder:
        """Returns the program that all rules run in."""
        return Decoder(self.expert, ModelDrafter(self.drafter), SIZE, ROOM, verifier, logprobs=True)

    @property
    def spec_decoder(self) -> Decoder:
        """The program for spec alone and `close_params`."""
        return Decoder(self.expert, ModelDrafter(self.expert), SIZE, ROOM, "token", logprobs=True)


PAIRS = {
    "decoder_only": Pair(transformer(1, logit_softcap=12.0), transformer(2), horizon=5),
    "encoder_decoder": Pair(
        encoder_decoder(1, gated_mlp=False, activation="relu", tie_embeddings=True),
        encoder_decoder(2),
        horizon=6,
        scale=1.5,
        seed=7,
    ),
}
# Verification knows no model: by block, one family shows what every family does.
VERIFIED = (("decoder_only", "token"), ("decoder_only", "block"), ("encoder_decoder", "token"))
SPEC = (rules.make("spec"),)


def all_rules(knobs: list[dict] | None = None, seed: int = 0) -> tuple[rules.Rule, ...]:
    """Returns every rule with knobs of shape [B], so that all batches run in one program.

    Args:
      knobs: the knobs of each row, for the rule that it follows; random where not given.
      seed: of the random ones.
    """
    rng = np.random.default_rng(seed)
    made = []
    for name, row in rules.RULES.items():
        low, high = RANGES.get(name, (0.05, 0.6))
        values = toy_head.knobs_of(row)
        for key, knob in row.knobs.items():
            if not knob.static:
                values[key] = rng.uniform(low, high, BATCH) if key == "alpha" else FALLBACK
                values[key] = np.full(BATCH, values[key])
                for i, own in enumerate(knobs or []):
                    # Other rows' knobs may lie outside this rule's domain; it does not read them.
                    value = own.get(key, values[key][i])
                    below = value < knob.high or (value == knob.high and not knob.open_high)
                    if knob.low <= value and below:
                        values[key][i] = value
        made.append(rules.make(name, **values))
    return tuple(made)


def prompts(seed: int = 0, count: int = BATCH) -> list[list[int]]:
    """Returns prompts of every length, of one token and of all slots among them."""
    rng = np.random.default_rng(seed)
    lengths = np.concatenate([[1, 1, 2, SLOTS], rng.integers(1, SLOTS + 1, count - 4)])
    return [rng.integers(0, VOCAB, n).tolist() for n in rng.permutation(lengths)]


def token_bytes(token: int) -> bytes:
    """Returns the bytes of a token: one to three letters of a small alphabet."""
    rng = np.random.default_rng(1000 + token)
    return bytes(rng.choice(list(b"abc"), rng.integers(1, 4)).tolist())


STOPS = {"eos_ids": (7, 19), "stop_strings": ("abcab", "cabba", "bb")}
STOP_TABLE = stop_table(VOCAB, **STOPS, token_bytes=token_bytes)
NEVER = np.zeros_like(STOP_TABLE)  # of the same shape: no other program


def mixed_truncations(seed: int, count: int = BATCH) -> Truncation:
    """Returns limits of every kind, none among them."""
    rng = np.random.default_rng(seed)
    off = rng.uniform(size=(3, count)) < 0.6
    return Truncation(
        np.where(off[0], VOCAB, rng.integers(1, 12, count)),
        np.where(off[1], 1.0, rng.uniform(0.3, 1.0, count)),
        np.where(off[2], 0.0, rng.uniform(0.0, 0.3, count)),
    )


NO_TRUNCATION = Truncation(VOCAB, 1.0, 0.0)  # of the same structure: no other program


def mixed_rows(seed: int = 0, **changes) -> Rows:
    """Returns a batch of every rule, temperature, truncation, prompt length and limit."""
    rng = np.random.default_rng(seed + 100)
    limits = rng.integers(2, ROOM + 1, BATCH)
    limits[rng.permutation(BATCH)[:30]] = ROOM
    limits[:4] = 0, 1, 0, 1
    options = {
        "stop_table": STOP_TABLE,
        "max_new_tokens": limits,
        "prompt_slots": SLOTS,
        "temperature": rng.choice([0.0, 0.7, 1.0, 1.0], BATCH),
        "seed": rng.integers(0, 5, BATCH),
        "example_ids": rng.permutation(1000)[:BATCH],
        "rule_index": np.arange(BATCH) % len(NAMES),
        "drafter_truncation": mixed_truncations(seed),
        "expert_truncation": mixed_truncations(seed + 1),
    }
    return make_rows(prompts(seed), **{**options, **changes})


def greedy_rows(row_prompts, **changes) -> Rows:
    """Returns a greedy batch without limits of any kind."""
    options = {
        "stop_table": NEVER,
        "max_new_tokens": ROOM,
        "prompt_slots": SLOTS,
        "drafter_truncation": NO_TRUNCATION,
        "expert_truncation": NO_TRUNCATION,
    }
    return make_rows(row_prompts, **{**options, **changes})


def texts(output) -> list[list[int]]:
    """Returns each row's own tokens."""
    tokens, counts = np.asarray(output.tokens), np.asarray(output.num_tokens)
    return [row[:n].tolist() for row, n in zip(tokens, counts, strict=True)]


# ---- tables ----


@dataclasses.dataclass(frozen=True)
class Table:
    """A `Model` that is a table of logits `[V * V, V]`, by the last two tokens.

    Its cache holds the tokens read, so that a cache that is wrong by one token gives another row of
    the table. What no one wrote is V - 1; before a text stands 0.
    """

    vocab_size: int

    def _logits(self, params, before, tokens):
        return params[before * self.vocab_size + tokens]

    def forward(self, params, tokens, prompt_length):
        """Scores whole sequences; see `Model.forward`."""
        return self._logits(params, jnp.pad(tokens, ((0, 0), (1, 0)))[:, :-1], tokens)

    def answer_logits(self, params, prompt, prompt_length, answer):
        """Scores answers alone; see `Model.answer_logits`."""
        rows = jnp.arange(len(prompt))
        texts = [prompt[rows, prompt_length - 2], prompt[rows, prompt_length - 1], *answer.T]
        texts[0] = jnp.where(prompt_length > 1, texts[0], 0)
        return self._logits(params, jnp.stack(texts[:-2], 1), jnp.stack(texts[1:-1], 1))

    def init_cache(self, batch, slots, rollback=None):
        """Returns a cache without tokens."""
        return jnp.full((batch, slots), self.vocab_size - 1, jnp.int32)

    def prefill(self, params, tokens, lengths, cache):
        """Reads right-padded prompts; see `Model.prefill`."""
        cache = cache.at[:, : tokens.shape[1]].set(tokens)
        last = jnp.take_along_axis(tokens, lengths[:, None] - 1, axis=1)[:, 0]
        return models.Prefilled(cache, last, lengths - 1)

    def apply(self, params, tokens, positions, cache):
        """Scores the next tokens of every row; see `Model.apply`."""
        cache = cache.at[jnp.arange(len(tokens))[:, None], positions].set(tokens)
        before = jnp.take_along_axis(cache, jnp.maximum(positions - 1, 0), axis=1)
        before = jnp.where(positions > 0, before, 0)
        return self._logits(params, before, tokens), cache

    def axis_sizes(self):
        """Returns none; see `Model.axis_sizes`."""
        return {}

    def param_axes(self, key):
        """Returns none: a table is whole on every device."""
        return P()

    def cache_axes(self, cache):
        """Returns those of the tokens read; see `Model.cache_axes`."""
        return P("batch")


def tables(vocab: int, seed: int, scale: float = 1.5) -> dict:
    """Returns the parameters of a random pair of tables."""
    rng = np.random.default_rng(seed)
    shape = (vocab * vocab, vocab)
    return {
        role: (scale * rng.normal(size=shape)).astype(np.float32) for role in ("drafter", "expert")
    }
