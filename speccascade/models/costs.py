"""Operations and bytes of the acts of a block, per device, by arithmetic.

XLA's own cost analysis counts the body of a loop once and is not used. What is counted here: the
products and attention, weights and caches read from memory, and what devices must exchange where a
product's summed axis is sharded. Activations are not: those of a few tokens stay on the chip.
"""

import dataclasses
import functools
import math
import re

import jax
import numpy as np

from speccascade.models.interface import Cache, Model, Params, shapes
from speccascade.models.memory import is_product, leaves, local, size

# A decoder's step needs neither the encoder nor what has become the cache's keys and values of the
# prompt.
_PREFILL_ONLY = re.compile(r"encoder/|decoder/cross_attention_\d+/(key|value)/")
_EMBEDDING = re.compile(r"embedding($|/)")  # with int8 weights it has two arrays
_HEAD = re.compile(r"head/")
_BRANCHES = re.compile(r"mlp_\d+/(gate|up|down)(/(values|scale))?")


@dataclasses.dataclass(frozen=True)
class Exchange:
    """An all-reduce: `bytes` on each of `ways` devices, summed over them."""

    bytes: int
    ways: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an act costs one device.

    Attributes:
      ops: operations of matrix products, a multiplication and an addition being two.
      hbm_bytes: bytes read from and written to memory.
      exchanges: one after the other.
    """

    ops: float = 0
    hbm_bytes: float = 0
    exchanges: tuple[Exchange, ...] = ()

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.ops + other.ops,
            self.hbm_bytes + other.hbm_bytes,
            self.exchanges + other.exchanges,
        )

    def __mul__(self, times: int) -> "Cost":
        return Cost(self.ops * times, self.hbm_bytes * times, self.exchanges * times)

    @property
    def ici_bytes(self) -> float:
        """Bytes that a device sends: `2 (w - 1) / w` of each array summed over w devices."""
        return sum(2 * (e.ways - 1) / e.ways * e.bytes for e in self.exchanges)


def read_by_step(model: Model, params: Params) -> list[tuple[str, jax.ShapeDtypeStruct]]:
    """Returns key and shape of the parameters that a pass over a cache reads.

    Of an embedding that is not the output head too, only some rows are read.
    """
    return [
        (key, leaf)
        for key, leaf in leaves(params)
        if not _PREFILL_ONLY.match(key)
        and (not _EMBEDDING.match(key) or model.config.tie_embeddings)
    ]


def entries(model: Model, key: str, shape: tuple[int, ...]) -> int:
    """Returns how many numbers of a product's matrix a token meets: those of its own branches.

    Args:
      model: the model.
      key: the matrix's.
      shape: its shape, or that of a device's shard.
    """
    if not _BRANCHES.fullmatch(key):
        return math.prod(shape)
    routing = model.config.routing
    return math.prod(shape) * routing.chosen // routing.branches


def _share_read(model: Model, key: str, rows: int) -> float:
    """Returns how much of a parameter a pass reads: of branches, those that some token chose.

    Tokens are taken to choose evenly and each by itself.
    """
    if not _BRANCHES.fullmatch(key):
        return 1
    routing = model.config.routing
    return 1 - (1 - routing.chosen / routing.branches) ** rows


def forward(model: Model, params: Params, cache: Cache, tokens: int) -> Cost:
    """Returns the cost of one pass of a model over its cache.

    Args:
      model: the model.
      params: its parameters' shapes and shardings.
      cache: the same of its cache, whose axis 0 is the batch. All slots count as read: so does the
        program, filled or not.
      tokens: S, of each row.
    """
    keys_and_values = [leaf for _, leaf in leaves(cache) if leaf.ndim == 4]
    rows = local(keys_and_values[0])[0] * tokens
    width = 2 if model.config.dtype == "bfloat16" else 4
    ops, hbm, exchanges = 0, 0.0, []
    for key, leaf in read_by_step(model, params):
        hbm += size(leaf) * _share_read(model, key, rows)
        if not is_product(key, leaf):
            continue
        *_, out, summed = local(leaf)
        ops += 2 * entries(model, key, local(leaf)) * rows
        if (ways := leaf.shape[-1] // summed) > 1:
            exchanges.append(Exchange(rows * out * width, ways))
    embedding = next(leaf for key, leaf in leaves(params) if _EMBEDDING.match(key))
    if (ways := embedding.shape[0] // local(embedding)[0]) > 1:
        exchanges.append(Exchange(rows * model.config.d_model * width, ways))
    for leaf in keys_and_values:
        batch, heads, slots, head_dim = local(leaf)
        queries = model.config.num_heads // leaf.shape[1] * heads
        ops += 2 * batch * queries * tokens * slots * head_dim
        # Read whole, and the new tokens' slots written; those of a prompt (T5) are not.
        hbm += size(leaf) + batch * heads * tokens * head_dim * leaf.dtype.itemsize
    return Cost(ops, hbm, tuple(exchanges))


def verification(rows: int, vocab: int, expert_tokens: int, drafter_tokens: int) -> Cost:
    """Returns the least that distributions, target and verification can cost over HBM alone.

    Every logit is written once, in float32, and read twice: maxima, log-sum-exps and entropies
    come before distances and kept mass, which need them; then one position of each row is read for
    the token after the accepted prefix. A compiled program costs less where the arrays stay on the
    chip; see `streams.py`.

    Args:
      rows: rows of a device.
      vocab: token ids of a device.
      expert_tokens: positions of a row that the expert scores, N + 1.
      drafter_tokens: positions of a row at which the drafter's distribution is known, N or N + 1.
    """
    return Cost(hbm_bytes=4 * rows * vocab * (3 * (expert_tokens + drafter_tokens) + 2))


def scoring(
    model: Model, prompt_length: np.ndarray, answer_length: np.ndarray, scored: np.ndarray
) -> float:
    """Returns the operations of scoring texts without a cache, what pads them left out.

    A step of training takes three times as many: a product's two gradients cost as much as the
    product each.

    Args:
      model: the model.
      prompt_length: [B], tokens.
      answer_length: [B], tokens.
      scored: [B], of how many tokens the logits are made.
    """
    c, (prompt_only, others, head) = model.config, _weights(model)
    prompt, answer = np.asarray(prompt_length, float), np.asarray(answer_length, float)
    per_pair = 4 * c.num_heads * c.head_dim  # a score, and its part of the mix
    if hasattr(c, "num_decoder_layers"):  # answers are read apart
        layers, read = c.num_decoder_layers, answer
        pairs = c.num_layers * prompt**2 + layers * (_causal(answer) + answer * prompt)
    else:
        read = prompt + answer
        pairs = sum(_causal(read, c.layer_window(layer)) for layer in range(c.num_layers))
    products = prompt_only * prompt + others * read + head * np.asarray(scored, float)
    return float(np.sum(2 * products + per_pair * pairs))


def _causal(length: np.ndarray, window: int | None = None) -> np.ndarray:
    """How many pairs of tokens of a text see each other, each itself and those before."""
    full = length if window is None else np.minimum(length, window)
    return full * (full + 1) / 2 + (length - full) * full


@functools.lru_cache(maxsize=64)
def _weights(model: Model) -> tuple[int, int, int]:
    """Numbers in products with a prompt's tokens alone, with all that are read, and in the head."""
    prompt_only = others = head = 0
    for key, leaf in leaves(shapes(model)):
        if not is_product(key, leaf):
            continue
        size = entries(model, key, leaf.shape)
        if _EMBEDDING.match(key):
            head += size if model.config.tie_embeddings else 0
        elif _HEAD.match(key):
            head += size
        elif _PREFILL_ONLY.match(key):
            prompt_only += size
        else:
            others += size
    return prompt_only, others, head
