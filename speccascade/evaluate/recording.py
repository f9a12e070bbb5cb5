"""Saves what both models say at every token of answers that a workdir keeps.

They are scored once, as references are; see `workdir/distributions.py` for what is written.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from speccascade.errors import UserError
from speccascade.evaluate import teacher_forced
from speccascade.evaluate.jobs import QUALITY, Job
from speccascade.evaluate.quality import Prompts, of_examples
from speccascade.inference.engine import Engine
from speccascade.inference.methods import EXPERT
from speccascade.inference.reading import find
from speccascade.inference.setting import Setting
from speccascade.sharding import hosts
from speccascade.vocab import entropy
from speccascade.workdir import answers as answers_lib
from speccascade.workdir import distributions
from speccascade.workdir.answers import Answer, Answers

WHOLE = "whole"
# Logits of one model in a part, which is what a kill can cost.
_MOST_LOGITS = 2**22


@dataclasses.dataclass(frozen=True)
class Recording:
    """What to save.

    Attributes:
      top: the most probable tokens of either model; None for all.
      of: settings by their words; without any those of the expert alone or, where there are none,
        of `spec`.
    """

    top: int | None
    of: tuple[str, ...] = ()

    def jobs(self, jobs: Sequence[Job], engine: Engine) -> list[Job]:
        """Returns the quality jobs whose answers are scored.

        Raises:
          UserError: a setting is none of them, or the pair has no two models, or no token so many.
        """
        if engine.pair.drafter is None:
            raise UserError(
                f"--save_distributions needs two models and pair {engine.pair.name} has one"
            )
        size = engine.pair.expert.vocab_size
        if self.top is not None and self.top > size:
            raise UserError(
                f"--save_distributions={self.top} is more than the {size} tokens of the pair; give "
                f"{WHOLE}"
            )
        by_quality = [job for job in jobs if job.kind == QUALITY]
        settings = list(dict.fromkeys(job.setting for job in by_quality))
        chosen = [find(words, settings) for words in self.of] or _exact(settings)
        return [job for job in by_quality if job.setting in chosen]


def from_flags(what: str | None, of: Sequence[str]) -> Recording | None:
    """Returns what two flags ask for, None where they are not given.

    Raises:
      UserError: `what` is neither "whole" nor a number of tokens.
    """
    if what is None and of:
        raise UserError("--distributions_of needs --save_distributions")
    if what is None:
        return None
    if what != WHOLE and not (what.isdecimal() and int(what) > 0):
        raise UserError(
            f"--save_distributions={what} must be {WHOLE} or a number of tokens, such as 32"
        )
    return Recording(None if what == WHOLE else int(what), tuple(of))


def _exact(settings: Sequence[Setting]) -> list[Setting]:
    alone = [s for s in settings if s.method == EXPERT]
    if not (found := alone or [s for s in settings if s.rule == "spec"]):
        raise UserError(
            "evaluate.settings has neither the expert alone nor spec, whose answers "
            "--save_distributions takes; name a setting with --distributions_of"
        )
    return found


def check(workdir: str, name: str, top: int | None, size: int) -> None:
    """Raises UserError where what is there of a job was saved otherwise, or is damaged."""
    kept = answers_lib.read(workdir, name, distributions.FOLDER)
    for row in kept[:1]:
        if row.get("top") != top or row["vocab_size"] != size:
            was = WHOLE if row.get("top") is None else row["top"]
            path = answers_lib.path_of(workdir, name, distributions.FOLDER)
            raise UserError(
                f"{path} was saved with --save_distributions={was}; give that, or remove the file"
            )


def run(
    engine: Engine,
    prompts: Prompts,
    count: int,
    top: int | None,
    batch_size: int,
    workdir: str,
    name: str,
    store: Answers | None,
) -> int:
    """Saves what is missing of one job.

    Args:
      engine: the pair.
      prompts: of its split.
      count: how many examples it has.
      top: see `Recording`.
      batch_size: the most answers that are scored at a time.
      workdir: where its answers are.
      name: under which they are kept there.
      store: of the workdir's distributions, on the first process.

    Returns:
      How many answers it scored.

    Raises:
      UserError: nothing could be written, or logits were not finite; what was saved is intact.
    """
    kept = hosts.from_first(lambda: answers_lib.read(workdir, name))
    there = hosts.from_first(lambda: [[row["id"], row["prompt"]] for row in store.known(name)])
    saved = {tuple(fields) for fields in there}
    own = of_examples(kept, prompts.examples[:count])
    missing = [
        place
        for place, answer in enumerate(own)
        if answer is not None and (answer["id"], answer["prompt"]) not in saved
    ]
    known = [index for index, _ in there] + [own[i]["id"] for i in missing]
    if missing:
        _score(engine, prompts, own, missing, top, batch_size, name, store)
    if len(set(known)) < len(known):  # those to other prompts, of a task that has others now
        with hosts.agreed():
            if store is not None:
                store.pack(name)
    return len(missing)


def _score(
    engine: Engine,
    prompts: Prompts,
    own: Sequence[Answer | None],
    missing: Sequence[int],
    top: int | None,
    batch_size: int,
    name: str,
    store: Answers | None,
) -> None:
    found = teacher_forced.answered(
        engine,
        [prompts.requests[i] for i in missing],
        [own[i]["tokens"] for i in missing],
    )
    size = found.ids.shape[1] * engine.pair.expert.vocab_size
    rows = max(1, min(batch_size, _MOST_LOGITS // size, len(missing)))
    for start in range(0, len(missing), rows):
        part = teacher_forced.batch_of(found, start, rows)
        logits = teacher_forced.both_logits(engine, part)
        told = hosts.gather(_told(engine.pair.expert.vocab_size, top, *logits, part.ids))
        places = missing[start : start + rows]
        with hosts.agreed():
            made = list(_rows(engine, told, part, [own[i] for i in places], top))
            if store is not None:
                store.add(name, made)


class _Told(NamedTuple):
    """What a batch of answers says of both models, each with a leading axis for the model.

    Attributes:
      logprobs: float32 [2, B, A, V], or at `ids` [2, B, A, K].
      ids: int32 [B, A, K], what either model finds most probable and what stands there, some of
        them twice; None where all is told.
      rest: float32 [2, B, A].
      entropy: float32 [2, B, A].
      chosen: int32 [2, B, A].
    """

    logprobs: jax.Array
    ids: jax.Array | None = None
    rest: jax.Array | None = None
    entropy: jax.Array | None = None
    chosen: jax.Array | None = None


@partial(jax.jit, static_argnums=(0, 1))
def _told(size: int, top: int | None, drafter_logits, expert_logits, ids) -> _Told:
    logits = jnp.stack([drafter_logits, expert_logits])[..., :size].astype(jnp.float32)
    logprobs = jax.nn.log_softmax(logits)
    if top is None:
        return _Told(logprobs)
    best = jax.lax.top_k(logprobs, top)[1]
    listed = jnp.concatenate([*best, ids[..., None]], axis=-1)
    at = jnp.take_along_axis(logprobs, listed[None], axis=-1)
    probs = jnp.exp(logprobs)
    is_listed = jax.vmap(jax.vmap(lambda own: jnp.zeros(size, bool).at[own].set(True)))(listed)
    rest = jnp.sum(jnp.where(is_listed, 0.0, probs), axis=-1)
    return _Told(at, listed, rest, entropy(probs)[..., 0], best[..., 0])


def _rows(
    engine: Engine,
    told: _Told,
    part: teacher_forced.Answered,
    own: Sequence[Answer],
    top: int | None,
) -> Iterator[dict[str, Any]]:
    for b, answer in enumerate(own):
        length = int(part.length[b])
        if not np.isfinite(told.logprobs[:, b, :length].max(-1)).all():
            raise UserError(
                f"example {answer['id']} met logits that were not finite; look at the checkpoints "
                "and the dtype"
            )
        fields = {
            "id": answer["id"],
            "prompt": answer["prompt"],
            "pair": engine.pair.hash,
            "tokenizer": engine.pair.tokenizer.content_hash,
            "vocab_size": engine.pair.expert.vocab_size,
            "tokens": part.ids[b, :length].tolist(),
        }
        if top is None:
            models = [distributions.whole_fields(x[b, :length]) for x in told.logprobs]
        else:
            fields["top"] = top
            models = list(_listed(told, b, length))
        yield {**fields, **dict(zip(distributions.MODELS, models, strict=True))}


def _listed(told: _Told, b: int, length: int) -> Iterator[dict[str, Any]]:
    firsts = [np.unique(row, return_index=True)[1] for row in told.ids[b, :length]]
    ids = [row[first] for row, first in zip(told.ids[b], firsts, strict=False)]
    for m in range(len(distributions.MODELS)):
        logprobs = [row[first] for row, first in zip(told.logprobs[m, b], firsts, strict=False)]
        yield distributions.listed_fields(
            ids,
            logprobs,
            told.rest[m, b, :length],
            told.entropy[m, b, :length],
            told.chosen[m, b, :length],
        )
