"""Lets models write texts that a drafter learns from, and an expert read them.

A drafter must be right where its expert goes, so it learns on the expert's own text (Zhou et al.
2024, "DistillSpec"). Prompts are those of a task or of a file, one a line, or an expert that was
tuned for conversations makes them up as well (Xu et al. 2024, "Magpie"). Beside the texts
(`texts.py`) lies

prompts.json      the prompts, in the order in which they are answered, and in how many batches they
                  were made up
"""

import functools
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm
from etils import epath

from speccascade import decode, rules
from speccascade.distillation import texts
from speccascade.errors import UserError
from speccascade.importing import Loaded
from speccascade.inputs import paths, text_files, values
from speccascade.inputs.fields import Fields
from speccascade.models.interface import Model, Params
from speccascade.pairs.lengths import Lengths
from speccascade.sharding import Layout, active, hosts
from speccascade.workdir import files

SELF, TASK = "self", "task"

EXAMPLE = "configs/smollm2.py"

_COUNTS = ("num_texts", "batch_size", "prompt_slots", "max_new_tokens")
_READ = 8  # texts that the expert reads at a time
_ANSWERS = 1 << 29  # flips this bit of the seed with which answers are written


def check(config: ml_collections.FrozenConfigDict, layout: Layout | None = None) -> None:
    """Raises UserError where a field of the config's `texts` is missing or out of range.

    Args:
      config: the section.
      layout: over which rows are spread; None for one device.
    """
    values.section("texts", config, (*_COUNTS, "seed", "prompts", "chat", "temperatures"), EXAMPLE)
    for name in _COUNTS:
        values.whole(f"texts.{name}", config[name], 1)
    values.whole("texts.seed", config.seed)
    values.boolean("texts.chat", config.chat)
    if config.prompts not in (SELF, TASK):
        paths.plain(config.prompts)
    if min(values.numbers("texts.temperatures", config.temperatures)) < 0:
        raise UserError(f"texts.temperatures={config.temperatures} must be at least 0")
    ways = 1 if layout is None else layout.ways(layout.expert.batch)
    if config.batch_size % ways:
        raise UserError(
            f"texts.batch_size={config.batch_size} must be a multiple of {ways}, for the devices "
            "along mesh.data"
        )


def write(writer: "Writer", directory: epath.Path, exclude: Collection[str] = ()) -> None:
    """Lets the expert write until there are `texts.num_texts`, going on from what is there.

    Args:
      writer: whose expert it is.
      directory: where the files go.
      exclude: prompts that the drafter must not see, such as those that it is measured on.

    Raises:
      UserError: there are too few prompts that fit.
    """
    c = writer.config
    prompts = _write_prompts(writer, c.num_texts, directory / "prompts.json", exclude)
    writer.write(writer.ids(prompts), directory)

    def tell():
        if cut := texts.unfinished(directory, len(prompts), writer.expert.tokenizer.eos_ids):
            print(
                f"{cut} of {len(prompts)} answers ended for want of room, without an "
                f"end-of-sequence, at texts.max_new_tokens={c.max_new_tokens}",
                file=sys.stderr,
            )

    hosts.from_first(tell)


def check_prompts(writer: "Writer", directory: epath.Path, exclude: Collection[str] = ()) -> None:
    """Raises UserError where too few prompts are given; those that are made up are not known yet.

    See `write` for the arguments; nothing is written.
    """
    there = _read_prompts(directory / "prompts.json")["prompts"]
    if writer.makes_up or len(there) >= writer.config.num_texts:
        return
    fresh = {*map(_plain, writer.prompts(0))} - {*map(_plain, [*exclude, *there])}
    if (count := len(there) + len(fresh)) < writer.config.num_texts:
        raise _too_few(count)


def _too_few(count: int) -> UserError:
    return UserError(
        f"no more than {count} different prompts were found; lower texts.num_texts or give "
        "texts.prompts a file with more of them"
    )


def _write_prompts(
    writer: "Writer", count: int, path: epath.Path, exclude: Collection[str]
) -> list[str]:
    """Returns `count` prompts, each of them once, and makes and writes those that are not there."""
    found = hosts.from_first(lambda: _read_prompts(path))
    prompts = found["prompts"]
    known = set(map(_plain, [*exclude, *prompts]))
    fruitless = 0
    with _bar("prompt", count, len(prompts)) as bar:
        while len(prompts) < count:
            before = len(prompts)
            batch = len(prompts) + found["batches"]  # never the same again
            for prompt in writer.prompts(batch):
                if _plain(prompt) not in known and len(prompts) < count:
                    known.add(_plain(prompt))
                    prompts.append(prompt)
            found["batches"] += 1
            fruitless = 0 if len(prompts) > before else fruitless + 1
            if fruitless == 10:
                raise _too_few(len(prompts))
            hosts.from_first(lambda: _keep(path, found))
            bar.update(len(prompts) - before)
    return prompts[:count]


def _bar(what: str, total: int, done: int) -> tqdm.tqdm:
    shape = {"total": total, "initial": min(done, total), "unit": what}
    return tqdm.tqdm(desc=f"{what}s", disable=not hosts.is_first(), **shape)


def _keep(path: epath.Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(os.fspath(path), found)


def _read_prompts(path: epath.Path) -> dict[str, Any]:
    if not path.exists():
        return {"prompts": [], "batches": 0}
    found = Fields.read(path)
    return {"prompts": found.texts("prompts"), "batches": found.integer("batches")}


def _plain(prompt: str) -> str:
    return " ".join(prompt.lower().split())


class Author(NamedTuple):
    """Who writes answers that the expert then reads.

    Attributes:
      model: over the expert's token ids.
      params: its parameters, where the layout has them.
      seed: of what it draws.
    """

    model: Model
    params: Params
    seed: int


class Writer:
    """Makes prompts and has them answered, by the expert or another model, a batch at a time.

    Attributes:
      expert: makes the prompts up, where no file has them, and reads the answers.
      config: the config's `texts`.
    """

    def __init__(
        self,
        expert: Loaded,
        config: ml_collections.FrozenConfigDict,
        layout: Layout | None = None,
        prompts: Sequence[str] = (),
    ):
        """Checks what can be checked.

        Args:
          expert: see the class.
          config: likewise.
          layout: how models lie on a mesh; None for one device.
          prompts: of the task, where the config asks for those.

        Raises:
          UserError: a value is out of range, or a prompt does not fit.
        """
        check(config, layout)
        self.expert = expert
        self._layout = layout
        self.config = c = config
        self._itself = Author(expert.model, expert.params, c.seed ^ _ANSWERS)
        self._size = c.prompt_slots + c.max_new_tokens
        lengths = Lengths.of(expert.model, expert.context_length)
        limits = lengths.for_prompt(c.max_new_tokens), lengths.for_answer(c.prompt_slots)
        wanted = c.prompt_slots, c.max_new_tokens
        if any(n is not None and n < size for n, size in zip(limits, wanted, strict=True)):
            raise UserError(
                f"texts.prompt_slots + texts.max_new_tokens is {self._size} and the expert's "
                f"context {expert.context_length}; lower one of them"
            )
        tokenizer = expert.tokenizer
        self._stops = decode.stop_table(tokenizer.vocab_size, tokenizer.eos_ids)
        self._opening = tokenizer.encode_chat_opening() if c.prompts == SELF else None
        if self._opening and len(self._opening) >= c.prompt_slots:
            raise UserError(
                f"texts.prompt_slots={c.prompt_slots} leaves no room for a prompt: the chat "
                f"template alone has {len(self._opening)} tokens"
            )
        self._given = None
        if c.prompts != SELF:
            self._given = list(prompts) if c.prompts == TASK else _read_lines(c.prompts)

    @property
    def makes_up(self) -> bool:
        """Whether the expert makes the prompts up."""
        return self._given is None

    def prompts(self, batch: int) -> list[str]:
        """Returns prompts that fit, perhaps known ones; what it makes up differs by `batch`."""
        return self._fitting(self._made_up(batch)) if self.makes_up else self._given_that_fit

    @functools.cached_property
    def _given_that_fit(self) -> list[str]:
        return self._fitting(self._given)

    def _fitting(self, found: Sequence[str]) -> list[str]:
        ids = self.ids(found)
        return [f for f, i in zip(found, ids, strict=True) if 0 < len(i) <= self._slots]

    @property
    def _slots(self) -> int:
        return self.config.prompt_slots

    def ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Returns the prompts' token ids."""
        return self.expert.tokenizer.encode_prompts(prompts, chat=self.config.chat)

    def _made_up(self, batch: int) -> list[str]:
        """Lets the expert speak in the user's place; what it did not finish is dropped."""
        c = self.config
        room = c.prompt_slots - len(self._opening)
        example_ids = batch * c.batch_size + np.arange(c.batch_size)
        opened = [self._opening] * c.batch_size
        asked = self._rows(opened, len(self._opening), example_ids, room, c.seed, 1.0)
        writes = self.expert.model, self.expert.params, asked, room
        output = hosts.gather(decode.autoregressive(*writes, layout=self._layout))
        rows = zip(output.tokens, output.num_tokens, output.finished, strict=True)
        found = [self.expert.tokenizer.decode(ids[:n]).strip() for ids, n, end in rows if end]
        return [text for text in found if text]

    def write(
        self, ids: Sequence[Sequence[int]], directory: epath.Path, author: Author | None = None
    ) -> None:
        """Has prompts answered into files, going on from those that are there.

        Args:
          ids: of each prompt.
          directory: where the files go.
          author: who answers; None for the expert, whose prompts are then learnt as well where it
            made them up.
        """
        size, done = self.config.batch_size, hosts.from_first(lambda: len(texts.files(directory)))
        with _bar("answer", len(ids), done * size) as bar:
            for index, part in enumerate(self._answers(ids, done * size, author), done):
                path = directory / f"{index:05d}.npz"
                hosts.from_first(functools.partial(texts.save, path, part))
                bar.update(len(part["tokens"]))

    def _answers(
        self, ids: Sequence[Sequence[int]], first: int, author: Author | None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields the fields of `Texts` of all prompts from the `first` on, a batch's at a time.

        Batches come in order: what is done before its neighbours waits for them.
        """
        c, learnt = self.config, len(self._opening or ()) if author is None else 0
        found: dict[int, list[int]] = {}
        start = first
        for part in self._decoded(ids, first, author or self._itself):
            found |= part
            while start < len(ids):
                batch = range(start, min(start + c.batch_size, len(ids)))
                if not all(i in found for i in batch):
                    break
                yield self._texts([ids[i] for i in batch], [found.pop(i) for i in batch], learnt)
                start += c.batch_size

    def _decoded(
        self, ids: Sequence[Sequence[int]], first: int, author: Author
    ) -> Iterator[dict[int, list[int]]]:
        """Yields tokens of answers by the indices of their prompts, as soon as they are done."""
        c = self.config
        given = values.numbers("texts.temperatures", c.temperatures)
        temperatures = np.resize(np.asarray(given, np.float32), c.batch_size)

        def make(indices):
            places = [first + i for i in indices]
            rows = self._rows(
                [ids[i] for i in places],
                c.prompt_slots,
                places,
                c.max_new_tokens,
                author.seed,
                temperatures[np.array(places) % c.batch_size],
            )
            return (rules.make("spec"),), rows

        writes = author.model, author.params, c.max_new_tokens
        program = decode.alone(*writes, layout=self._layout)
        for part in decode.stream(*program, make, max(len(ids) - first, 0), c.batch_size):
            yield {first + i: output.tokens[: output.num_tokens].tolist() for i, output, _ in part}

    def _texts(self, ids: Sequence[Sequence[int]], answers: Sequence[list[int]], learnt: int):
        """Returns the fields of `Texts` of answered prompts.

        With `learnt`, what is learnt of each begins there, and not with the answer.
        """
        c, model = self.config, self.expert.model
        tokens = np.full((c.batch_size, self._size), self.expert.tokenizer.pad_id, np.int32)
        prompt_length, length = np.ones(c.batch_size, np.int32), np.ones(c.batch_size, np.int32)
        for row, (prompt, answer) in enumerate(zip(ids, answers, strict=True)):
            text = [*prompt, *answer]
            prompt_length[row], length[row] = len(prompt), len(text)
            tokens[row, : len(text)] = text
        first = np.full_like(prompt_length, learnt) if learnt else prompt_length
        parts = [
            hosts.gather(
                _read(
                    model,
                    self.expert.params,
                    tokens[at : at + _READ],
                    prompt_length[at : at + _READ],
                    self._layout,
                )
            )
            for at in range(0, len(ids), _READ)
        ]
        features, log_normaliser = (np.concatenate(part) for part in zip(*parts, strict=True))
        fields = {
            "tokens": tokens,
            "prompt_length": prompt_length,
            "first": first,
            "length": length,
            "features": features,
            "log_normaliser": log_normaliser,
        }
        return {name: value[: len(ids)] for name, value in fields.items()}

    def _rows(self, ids, slots: int, example_ids, room: int, seed: int, temperature):
        return decode.make_rows(
            ids,
            stop_table=self._stops,
            max_new_tokens=room,
            prompt_slots=slots,
            temperature=temperature,
            seed=seed,
            example_ids=example_ids,
        )


@functools.partial(jax.jit, static_argnums=(0, 4))
def _read(model, params, tokens, prompt_length, layout=None):
    """What the expert's head reads in texts, and what normalises the logits that it makes."""
    with active.use(layout and layout.of("expert", model)):
        features = model.features(params, tokens, prompt_length)
    kept = features.astype(jnp.bfloat16)

    def normaliser(row):  # row by row: all logits at once would be large
        return jax.nn.logsumexp(model.head_logits(params, row), axis=-1)

    # Of what is kept, so that the probabilities made of it sum to one.
    bits = jax.lax.bitcast_convert_type(kept, jnp.uint16)
    return bits, jax.lax.map(normaliser, kept.astype(features.dtype))


def _read_lines(path: str) -> list[str]:
    lines = [line.strip() for line in text_files.read_lines(path) if line.strip()]
    if not lines:
        raise UserError(f"texts.prompts={path} has no prompts; give it one a line")
    return lines
