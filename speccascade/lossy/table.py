"""Behind `scripts/lossy_modes.py`: how far each lossy mode's sequences are from what it imitates.

On pairs of random table models, exactly: the law of a mode's sequences against the expert's and
against what its authors say it samples; beside it, at as many tokens per expert call, lossless
decoding of the expert truncated by min-p and of two rules' targets.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import rules as rules_lib
from speccascade.errors import UserError
from speccascade.lossy.laws import Tables, distance, expert_law, kernel_law

VOCAB, SIZE, LIMIT = 4, 3, 4  # V, N, tokens of a sequence


@dataclasses.dataclass(frozen=True)
class Mode:
    """A lossy mode at some knobs.

    Attributes:
      kernel: its name.
      temperature: 1, or 0 for greedy.
      knobs: of the kernel.
      claim: what it is said to sample from.
      claimed: `(p, p1) -> table`, that law.
      sure: whether drafts are the drafter's best tokens, as the engine drafts, not samples of it.
    """

    kernel: str
    temperature: float
    knobs: dict[str, float]
    claim: str
    claimed: Callable[[np.ndarray, np.ndarray], np.ndarray]
    sure: bool = False

    def __str__(self) -> str:
        knobs = " ".join(f"{k}={v:g}" for k, v in self.knobs.items() if k not in ("begin", "end"))
        return f"{self.kernel} {knobs}".strip()


def _truncated(p: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Returns p on the tokens allowed, or on its best where there are none."""
    best = p == p.max(-1, keepdims=True)
    kept = np.where(np.where(allowed.any(-1, keepdims=True), allowed, best), p, 0.0)
    return kept / kept.sum(-1, keepdims=True)


def _eta(epsilon: float, delta: float) -> Callable:
    def claimed(p, p1):
        entropy = -(p * np.log(p + 1e-5)).sum(-1, keepdims=True)
        return _truncated(p, p > np.minimum(epsilon, delta * np.exp(-entropy)))

    return claimed


def _expert(p, p1):
    return p


def _above(edge: float) -> Callable:
    return lambda p, p1: _truncated(p, p >= edge)


def _typical(name: str, knobs: dict[str, float], sure: bool = False) -> Mode:
    return Mode(name, 1.0, knobs, "eta-truncated expert", _eta(**knobs), sure)


_USUAL, _LOOSE = {"epsilon": 0.09, "delta": 0.3}, {"epsilon": 0.05, "delta": 0.1}
_SPAN = {"begin": 0, "end": VOCAB}  # the prompt thinks, and nothing ends that

MODES = (
    _typical("medusa_typical", _USUAL, sure=True),
    _typical("vllm_typical", _USUAL),
    _typical("vllm_typical", _LOOSE),
    Mode("sglang_threshold", 1.0, {}, "expert", _expert, sure=True),
    Mode("sglang_threshold", 1.0, {"threshold_acc": 0.5}, "expert", _expert, sure=True),
    Mode("sglang_threshold", 1.0, {"threshold_single": 0.2}, "p above 0.2", _above(0.2), sure=True),
    Mode("fly", 1.0, {"window": 6}, "expert", _expert, sure=True),
    Mode("fly", 1.0, {"window": 2}, "expert", _expert, sure=True),
    Mode("cactus", 1.0, {"delta": 0.1}, "expert", _expert),
    Mode("cactus", 1.0, {"delta": 0.5}, "expert", _expert),
    Mode("fly", 0.0, {"window": 2}, "expert", _expert),
    Mode("trtllm_relaxed", 0.0, {"delta": 0.2, "k": 10, **_SPAN}, "expert", _expert),
    Mode("trtllm_relaxed", 0.0, {"delta": 0.6, "k": 10, **_SPAN}, "expert", _expert),
    Mode("vllm_relaxed", 0.0, {"ratio": 0.5, "k": 3, **_SPAN}, "expert", _expert),
    Mode("vllm_relaxed", 0.0, {"ratio": 0.2, "k": 3, **_SPAN}, "expert", _expert),
    Mode("asd", 0.0, {"budget": 0.5}, "expert", _expert),
    Mode("asd", 0.0, {"budget": 2.0}, "expert", _expert),
)


@functools.cache
def pairs(count: int, temperature: float) -> tuple[Tables, ...]:
    """Returns random pairs of table models; the drafter's logits are the expert's with noise."""
    rng, made = np.random.default_rng(0), []
    for _ in range(count):
        expert = 2 * rng.normal(size=(VOCAB**2, VOCAB))
        drafter = expert + 1.5 * rng.normal(size=expert.shape)
        q1, p1 = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (drafter, expert))
        q, p = q1, p1
        if temperature == 0:
            q, p = (np.eye(VOCAB)[x.argmax(-1)] for x in (q1, p1))
        made.append(Tables(q, p, q1, p1))
    return tuple(made)


def _sure(tables: Tables) -> Tables:
    """Returns a pair whose drafter writes its best token."""
    return tables._replace(q=np.eye(VOCAB)[tables.q.argmax(-1)])


# ---- lossless rivals ----


def tokens_per_call(q: np.ndarray, pi: np.ndarray) -> np.ndarray:
    """Returns the mean tokens of the token verifier's first block, for tables `[..., C, V]`."""
    contexts, vocab = q.shape[-2:]
    following = (np.arange(contexts)[:, None] * vocab + np.arange(vocab)) % contexts
    kept, emitted = np.minimum(q, pi), np.ones(pi.shape[:-1])
    for _ in range(SIZE):
        emitted = 1 + (kept * emitted[..., following]).sum(-1)
    return emitted[..., 0]


def _min_p(strengths: np.ndarray, all_pairs: Tables) -> tuple[list[np.ndarray], np.ndarray]:
    def cut(table):
        edge = strengths[:, None, None, None] * table.max(-1, keepdims=True)
        return _truncated(np.broadcast_to(table, (len(strengths), *table.shape)), table >= edge)

    # Its law is the same, whoever drafts: the drafter, as truncated too, or its best tokens.
    return [all_pairs.q, cut(all_pairs.q), _sure(all_pairs).q], cut(all_pairs.p)


def _rule(
    name: str, strengths: np.ndarray, all_pairs: Tables
) -> tuple[list[np.ndarray], np.ndarray]:
    with jax.enable_x64(True):
        rule = rules_lib.Rule(name, {"alpha": jnp.asarray(strengths)})
        shape = (len(strengths), *all_pairs.q.shape)
        q, p, q1, p1 = (jnp.broadcast_to(x, shape) for x in all_pairs)
        target = rules_lib.target(rule, q, p, q1, p1)
        return [all_pairs.q], np.asarray(target)


RIVALS: dict[str, tuple[Callable, np.ndarray]] = {
    "truncated expert (min-p)": (_min_p, np.linspace(0, 1, 101)),
    "lossy": (partial(_rule, "lossy"), np.linspace(0, 0.99, 100)),
    "token_v3": (partial(_rule, "token_v3"), np.linspace(-0.01, 1, 102)),
}
"""Lossless ways to more tokens per call: drafters and the target at each strength, the weakest
first."""


@functools.cache
def _rivals(name: str, count: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns a rival's tokens per call and distance from the expert at each strength."""
    all_pairs = Tables(*map(np.stack, zip(*pairs(count, temperature), strict=True)))
    family, strengths = RIVALS[name]
    drafters, pi = family(strengths, all_pairs)
    tokens = np.max([tokens_per_call(q, pi) for q in drafters], axis=0).mean(-1)
    far = distance(expert_law(pi, LIMIT), expert_law(all_pairs.p, LIMIT)).mean(-1)
    return tokens, far


# ---- the table ----


def _row(mode: Mode, count: int) -> list[str]:
    made = [_sure(each) if mode.sure else each for each in pairs(count, mode.temperature)]
    rule = rules_lib.make(mode.kernel, **mode.knobs)
    laws, firsts = zip(*(kernel_law(rule, each, SIZE, LIMIT) for each in made), strict=True)
    alone = [kernel_law(rule, each, 1, LIMIT)[0] for each in made]
    laws, tokens = np.stack(laws), np.mean(firsts)

    def far(target):
        others = np.stack([expert_law(target(x.p, x.p1), LIMIT) for x in made])
        return f"{distance(laws, others).mean():.3f}"

    drafts = "best" if mode.sure or mode.temperature == 0 else "sampled"
    cells = [str(mode), f"{mode.temperature:g}", drafts, f"{tokens:.2f}", far(_expert)]
    cells += [mode.claim, far(mode.claimed), f"{distance(laws, np.stack(alone)).mean():.3f}"]
    for name, (_, strengths) in RIVALS.items():
        reached, distances = _rivals(name, count, mode.temperature)
        enough = np.flatnonzero(reached >= tokens - 1e-9)
        found = f"{distances[enough[0]]:.3f} ({strengths[enough[0]]:.2f})" if len(enough) else "-"
        cells.append(found)
    return cells


def divergence(rule: rules_lib.Rule, made: Sequence[Tables]) -> float:
    """Returns the largest KL divergence of a kernel's first token from the expert's, in nats."""
    found = []
    for tables in made:
        law, p = kernel_law(rule, tables, 1, 1)[0], tables.p[0]
        found.append((law * np.log(np.maximum(law, 1e-300) / p)).sum())
    return float(max(found))


def table(count: int) -> str:
    """Returns the table, in Markdown.

    Args:
      count: pairs of models; every figure is a mean over them.

    Raises:
      UserError: there is none.
    """
    if count < 1:
        raise UserError(f"pairs={count} must be at least 1")
    heads = ["mode", "T", "drafts", "tokens per call", "TV from the expert", "said to sample"]
    heads.append("TV from that")
    heads += [f"TV from N = 1 to {SIZE}", *(f"{name}: TV (strength)" for name in RIVALS)]
    rows = [heads, ["---"] * len(heads), *(_row(mode, count) for mode in MODES)]
    lines = [f"| {' | '.join(row)} |" for row in rows] + [""]
    for mode in MODES:
        if mode.kernel == "cactus":
            rule = rules_lib.make(mode.kernel, **mode.knobs)
            most = divergence(rule, pairs(count, mode.temperature))
            lines.append(f"{mode}: KL of the first token from the expert's is at most {most:.3f}.")
    return "\n".join(lines)
