"""Rounds in which the drafter learns on what it writes itself (Agarwal et al. 2024, "GKD").

In decoding a drafter goes on from its own tokens, and on the expert's texts it never meets what
follows from its mistakes. So every so many steps it answers prompts of the texts as it then is, the
expert reads the answers, and until the next round a share of every batch is of them: the drafter
comes nearer to what its expert thinks of them, token by token, and nothing goes back through their
drawing. The steps before the first round are on the expert's texts alone.

rounds/001, ...   in the workdir, the answers of each round, as `texts.py` has them

What a round writes depends on the parameters with which it begins, the seed and the config. They
are on the disk before it begins, so that a stop costs no more than the batch that was being
written.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np
from etils import epath

from speccascade.distillation import texts
from speccascade.distillation.texts import Texts
from speccascade.distillation.writing import Author, Writer
from speccascade.errors import UserError
from speccascade.inputs import values
from speccascade.models.interface import Model, Params
from speccascade.sharding import hosts
from speccascade.training.batches import rows_of_steps

EXAMPLE = "configs/on_policy.py"

_COUNTS = ("every", "num_texts")


def check(config: Mapping[str, Any], train: Mapping[str, Any], num_prompts: int) -> None:
    """Raises UserError where the config's `rounds` is out of range or does not fit.

    Args:
      config: the section.
      train: the config's `train`, which is in range.
      num_prompts: how many there are to learn from.
    """
    values.section("rounds", config, (*_COUNTS, "share"), EXAMPLE)
    for name in _COUNTS:
        values.whole(f"rounds.{name}", config[name], 1)
    if unknown := sorted(set(config) - {*_COUNTS, "share"}):
        raise UserError(f"unknown field rounds.{unknown[0]}; known: {', '.join(_COUNTS)}, share")
    every, saved = config["every"], train["checkpoint_every"]
    if every % saved:
        raise UserError(
            f"rounds.every={every} must be a multiple of train.checkpoint_every={saved}, so that "
            "who writes a round is kept"
        )
    if every >= train["num_steps"]:
        raise UserError(
            f"rounds.every={every} must be below train.num_steps={train['num_steps']}, or there "
            "is no round"
        )
    if config["num_texts"] > num_prompts:
        raise UserError(
            f"rounds.num_texts={config['num_texts']} must be at most {num_prompts}, the prompts "
            "that are learnt from; lower it or raise texts.num_texts"
        )
    if not 0 < values.number("rounds.share", config["share"]) <= 1:
        raise UserError(f"rounds.share={config['share']} must be above 0 and at most 1")
    if not own_rows(config["share"], train["batch_size"]):
        raise UserError(
            f"rounds.share={config['share']} of train.batch_size={train['batch_size']} is no row; "
            "raise one of them"
        )


def own_rows(share: float, batch_size: int) -> int:
    """Returns how many rows of a batch are the drafter's own."""
    return round(share * batch_size)


@dataclasses.dataclass
class Rounds:
    """Batches of a distillation, with or without rounds.

    Attributes:
      config: the whole config.
      learnt: the expert's texts.
      workdir: where the rounds' texts go.
      writer: has prompts answered.
      model: the drafter.
      whole: maps what a training holds of its parameters to all of them.
      needed: bool [B], the rows of a batch of which this process reads the features.
    """

    config: ml_collections.FrozenConfigDict
    learnt: Texts
    workdir: epath.Path
    writer: Writer
    model: Model
    whole: Callable[[Params], Params]
    needed: np.ndarray
    _own: tuple[int, Texts] | None = None

    def prepare(self, params: Params, step: int, keep: Callable[[], None]) -> None:
        """Has the texts ready that a step and those after it read, and writes them if it must.

        Args:
          params: what is trained, before the step.
          step: from 0; called at every multiple of `rounds.every` at least, and at the first step
            of a process.
          keep: returns once the parameters are on the disk.

        Raises:
          UserError: texts of an earlier step are missing, and who wrote them is gone.
        """
        c = self.config.get("rounds")
        if c is None or not (number := step // c.every):
            return
        if self._own is not None and self._own[0] == number:
            return
        directory = self.workdir / "rounds" / f"{number:03d}"
        if step == number * c.every:
            keep()
            # No seed of another round's answers, nor of the expert's.
            seed = self.config.texts.seed ^ number << 64
            author = Author(self.model, self.whole(params), seed)
            self.writer.write(self._prompts(number, c.num_texts), directory, author)
        with hosts.agreed():
            found = texts.load(directory, c.num_texts) if texts.files(directory) else None
        if found is None or len(found) < c.num_texts:
            there = 0 if found is None else len(found)
            raise UserError(
                f"{directory} has {there} of {c.num_texts} texts, and the drafter that wrote them "
                f"is {step % c.every} steps further; put them back, or take a new workdir"
            )
        self._own = number, found

    def _prompts(self, number: int, count: int) -> list[list[int]]:
        """Returns the token ids of a round's prompts, which go on after the round before's."""
        rows = rows_of_steps(len(self.learnt), count, self.config.train.seed)[number - 1]
        prompts = zip(self.learnt.tokens[rows], self.learnt.prompt_length[rows], strict=True)
        return [ids[:size].tolist() for ids, size in prompts]

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns the batch of a step, from 0, whose texts are ready."""
        size, seed = self.config.train.batch_size, self.config.train.seed
        if self._own is None:
            rows = rows_of_steps(len(self.learnt), size, seed)[step]
            return self.learnt.batch(rows, self.needed)
        (number, found), c = self._own, self.config.rounds
        own = own_rows(c.share, size)
        rows = rows_of_steps(len(found), own, seed)[step - number * c.every]
        parts = [found.batch(rows, self.needed[:own])]
        if own < size:
            rows = rows_of_steps(len(self.learnt), size - own, seed)[step]
            parts.append(self.learnt.batch(rows, self.needed[own:]))
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
