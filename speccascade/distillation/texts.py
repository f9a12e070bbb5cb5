"""What an expert itself writes: the texts that its drafter learns from.

A drafter must be right where its expert goes, so it learns on the expert's own text (Zhou et al.
2024, "DistillSpec"). Prompts come from a file, one a line, or an expert that was tuned for
conversations makes them up as well (Xu et al. 2024, "Magpie"). A directory of texts has

prompts.json      the prompts, in the order in which they are answered, and in how many batches they
                  were made up
00000.npz, ...    a batch of answered prompts each

and every file of it appears whole or not at all.

Of the expert's distributions its features are kept, in bfloat16, half the bytes of float32, and the
normaliser of what the head makes of them. An expert that computes in bfloat16 loses nothing. One in
float32 teaches others than its own: the shipped GSM pair's two models, computed in float32, differ
by 5e-7 and 5e-5 in total variation on average over 1,250 tokens, at most by 4e-4 and 2e-3, and one
most likely token in a thousand of the smaller one changes.
"""

import dataclasses
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm
from etils import epath

from speccascade import decode, rules
from speccascade.errors import UserError
from speccascade.importing import Loaded
from speccascade.inputs import paths, text_files, values
from speccascade.inputs.fields import Fields
from speccascade.pairs.lengths import Lengths
from speccascade.sharding import Layout, active
from speccascade.workdir import files

SELF = "self"

EXAMPLE = "configs/smollm2.py"

_COUNTS = ("num_texts", "batch_size", "prompt_slots", "max_new_tokens")
_READ = 8  # texts that the expert reads at a time
_ANSWERS = 1 << 29  # flips this bit of the seed with which answers are written


@dataclasses.dataclass(frozen=True)
class Texts:
    """Texts with what the expert made of them.

    Attributes:
      tokens: int32 [R, T], prompt, answer, padding.
      prompt_length: int32 [R].
      first: int32 [R], where the expert's own text begins: with the answer, or already with a
        prompt that it made up.
      length: int32 [R], prompt and answer together.
      features: uint16 [R, T, D], bits of what the expert's head reads, as bfloat16.
      log_normaliser: float32 [R, T], of the logits that the head makes of these.
    """

    tokens: np.ndarray
    prompt_length: np.ndarray
    first: np.ndarray
    length: np.ndarray
    features: np.ndarray
    log_normaliser: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
        """Returns the fields of some rows."""
        return {f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)}

    def split(self, at: int) -> tuple["Texts", "Texts"]:
        """Returns the first `at` texts and the others."""
        return Texts(**self.batch(slice(0, at))), Texts(**self.batch(slice(at, None)))


def load(directory: epath.Path, num_texts: int) -> Texts:
    """Reads the first `num_texts` texts."""
    parts: dict[str, list[np.ndarray]] = {f.name: [] for f in dataclasses.fields(Texts)}
    for path in _files(directory):
        with path.open("rb") as file, np.load(file) as saved:
            for name, found in parts.items():
                found.append(saved[name])
        if sum(map(len, parts["tokens"])) >= num_texts:
            break
    return Texts(**{name: np.concatenate(found)[:num_texts] for name, found in parts.items()})


def unfinished(directory: epath.Path, num_texts: int, eos_ids: Collection[int]) -> int:
    """Returns how many of the first `num_texts` ended for want of room."""
    ends: list[np.ndarray] = []
    for path in _files(directory):
        with path.open("rb") as file, np.load(file) as saved:  # no more of it than these two
            ends.append(saved["tokens"][np.arange(len(saved["length"])), saved["length"] - 1])
    return int(np.sum(~np.isin(np.concatenate(ends)[:num_texts], list(eos_ids))))


def check(config: ml_collections.FrozenConfigDict) -> None:
    """Raises UserError where a field of the config's `texts` is missing or out of range."""
    values.section("texts", config, (*_COUNTS, "seed", "prompts", "chat", "temperatures"), EXAMPLE)
    for name in _COUNTS:
        values.whole(f"texts.{name}", config[name], 1)
    values.whole("texts.seed", config.seed)
    values.boolean("texts.chat", config.chat)
    if config.prompts != SELF:
        paths.plain(config.prompts)
    if min(values.numbers("texts.temperatures", config.temperatures)) < 0:
        raise UserError(f"texts.temperatures={config.temperatures} must be at least 0")


def _read_prompts(path: epath.Path) -> dict[str, Any]:
    if not path.exists():
        return {"prompts": [], "batches": 0}
    found = Fields.read(path)
    return {"prompts": found.texts("prompts"), "batches": found.integer("batches")}


def _save(path: epath.Path, arrays: dict[str, np.ndarray]) -> None:
    partial_path = path.with_suffix(".partial")
    with partial_path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    partial_path.replace(path)


def _files(directory: epath.Path) -> list[epath.Path]:
    return sorted(directory.glob("*.npz"))


def _plain(prompt: str) -> str:
    return " ".join(prompt.lower().split())


class Writer:
    """Lets an expert make prompts and answer them, a batch at a time."""

    def __init__(
        self,
        expert: Loaded,
        config: ml_collections.FrozenConfigDict,
        directory: epath.Path,
        exclude: Collection[str] = (),
        layout: Layout | None = None,
    ):
        """Checks what is asked for; nothing is written.

        Args:
          expert: the model.
          config: the config's `texts`.
          directory: where the files go.
          exclude: prompts that the drafter must not see, such as those that it is measured on.
          layout: how the expert lies on a mesh; None for one device.

        Raises:
          UserError: a value is out of range, or there are too few prompts that fit.
        """
        check(config)
        self._expert = expert
        self._layout = layout
        self._config = c = config
        self._directory = directory
        self._exclude = exclude
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
        self._lines = None if c.prompts == SELF else _read_lines(c.prompts)
        there = _read_prompts(self._prompts)["prompts"]
        if self._lines is not None and len(there) < c.num_texts:
            fresh = {*map(_plain, self.prompts(0))} - {*map(_plain, [*exclude, *there])}
            if (count := len(there) + len(fresh)) < c.num_texts:
                raise _too_few(count)

    @property
    def _prompts(self) -> epath.Path:
        return self._directory / "prompts.json"

    def write(self) -> None:
        """Lets the expert write until there are `config.num_texts`, going on from what is there.

        Raises:
          UserError: it makes up no more prompts that differ.
        """
        c, directory = self._config, self._directory
        directory.mkdir(parents=True, exist_ok=True)
        self._write_prompts()
        prompts = _read_prompts(self._prompts)["prompts"][: c.num_texts]
        done = len(_files(directory))
        with tqdm.tqdm(total=len(prompts), desc="answers", unit="text") as bar:
            bar.update(min(done * c.batch_size, len(prompts)))
            for index, part in enumerate(self.answers(prompts, done * c.batch_size), done):
                _save(directory / f"{index:05d}.npz", part)
                bar.update(len(part["tokens"]))
        if cut := unfinished(directory, len(prompts), self._expert.tokenizer.eos_ids):
            print(
                f"{cut} of {len(prompts)} answers ended for want of room, without an "
                f"end-of-sequence, at texts.max_new_tokens={c.max_new_tokens}",
                file=sys.stderr,
            )

    def _write_prompts(self) -> None:
        """Makes prompts until there are enough, each of them once."""
        count = self._config.num_texts
        found = _read_prompts(self._prompts)
        prompts = found["prompts"]
        known = set(map(_plain, [*self._exclude, *prompts]))
        fruitless = 0
        with tqdm.tqdm(total=count, initial=min(len(prompts), count), desc="prompts") as bar:
            while len(prompts) < count:
                before = len(prompts)
                batch = len(prompts) + found["batches"]  # never the same again
                for prompt in self.prompts(batch):
                    if _plain(prompt) not in known and len(prompts) < count:
                        known.add(_plain(prompt))
                        prompts.append(prompt)
                found["batches"] += 1
                fruitless = 0 if len(prompts) > before else fruitless + 1
                if fruitless == 10:
                    raise _too_few(len(prompts))
                files.write_json(os.fspath(self._prompts), found)
                bar.update(len(prompts) - before)

    def prompts(self, batch: int) -> list[str]:
        """Returns prompts that fit, perhaps known ones; what it makes up differs by `batch`."""
        found = self._lines if self._lines is not None else self._made_up(batch)
        ids = self._ids(found)
        return [f for f, i in zip(found, ids, strict=True) if 0 < len(i) <= self._slots]

    @property
    def _slots(self) -> int:
        return self._config.prompt_slots

    def _ids(self, prompts: Sequence[str]) -> list[list[int]]:
        return self._expert.tokenizer.encode_prompts(prompts, chat=self._config.chat)

    def _made_up(self, batch: int) -> list[str]:
        """Lets the expert speak in the user's place; what it did not finish is dropped."""
        c = self._config
        room = c.prompt_slots - len(self._opening)
        example_ids = batch * c.batch_size + np.arange(c.batch_size)
        opened = [self._opening] * c.batch_size
        asked = self._rows(opened, len(self._opening), example_ids, room, c.seed, 1.0)
        writes = self._expert.model, self._expert.params, asked, room
        output = decode.autoregressive(*writes, layout=self._layout)
        output = jax.device_get(output)
        rows = zip(output.tokens, output.num_tokens, output.finished, strict=True)
        texts = [self._expert.tokenizer.decode(ids[:n]).strip() for ids, n, end in rows if end]
        return [text for text in texts if text]

    def answers(self, prompts: Sequence[str], first: int) -> Iterator[dict[str, np.ndarray]]:
        """Yields the fields of `Texts` of all prompts from the `first` on, a batch's at a time.

        Batches come in order: what is done before its neighbours waits for them.
        """
        c, ids = self._config, self._ids(prompts)
        given = values.numbers("texts.temperatures", c.temperatures)
        temperatures = np.resize(np.asarray(given, np.float32), c.batch_size)

        def make(indices):
            places = [first + i for i in indices]
            rows = self._rows(
                [ids[i] for i in places],
                c.prompt_slots,
                places,
                c.max_new_tokens,
                c.seed ^ _ANSWERS,
                temperatures[np.array(places) % c.batch_size],
            )
            return (rules.make("spec"),), rows

        found: dict[int, list[int]] = {}
        start = first
        for part in self._decoded(make, max(len(ids) - first, 0)):
            found |= {first + index: tokens for index, tokens in part}
            while start < len(ids):
                batch = range(start, min(start + c.batch_size, len(ids)))
                if not all(i in found for i in batch):
                    break
                yield self._texts([ids[i] for i in batch], [found.pop(i) for i in batch])
                start += c.batch_size

    def _decoded(self, make: Callable, count: int) -> Iterator[list[tuple[int, list[int]]]]:
        """Yields indices and tokens of answers as they are done; see `decode.stream`."""
        c = self._config
        writes = self._expert.model, self._expert.params, c.max_new_tokens
        program = decode.alone(*writes, layout=self._layout)
        if self._layout is None:
            for part in decode.stream(*program, make, count, c.batch_size):
                yield [(i, output.tokens[: output.num_tokens].tolist()) for i, output, _ in part]
            return
        for start in range(0, count, c.batch_size):  # on a mesh rows are not filled anew
            rows = np.minimum(start + np.arange(c.batch_size), count - 1)
            output = jax.device_get(decode.generate(*program, *make(rows)))
            answers = zip(rows.tolist(), output.tokens, output.num_tokens, strict=True)
            yield [(i, tokens[:size].tolist()) for i, tokens, size in answers]

    def _texts(self, ids: Sequence[list[int]], answers: Sequence[list[int]]):
        """Returns the fields of `Texts` of answered prompts."""
        c, model = self._config, self._expert.model
        tokens = np.full((c.batch_size, self._size), self._expert.tokenizer.pad_id, np.int32)
        prompt_length, length = np.ones(c.batch_size, np.int32), np.ones(c.batch_size, np.int32)
        for row, (prompt, answer) in enumerate(zip(ids, answers, strict=True)):
            text = [*prompt, *answer]
            prompt_length[row], length[row] = len(prompt), len(text)
            tokens[row, : len(text)] = text
        first = prompt_length
        if self._opening:
            first = np.full_like(prompt_length, len(self._opening))
        parts = [
            jax.device_get(
                _read(
                    model,
                    self._expert.params,
                    tokens[at : at + _READ],
                    prompt_length[at : at + _READ],
                    self._layout,
                )
            )
            for at in range(0, len(ids), _READ)
        ]
        features, log_normaliser = (np.concatenate(part) for part in zip(*parts, strict=True))
        fields = Texts(
            tokens=tokens,
            prompt_length=prompt_length,
            first=first,
            length=length,
            features=features,
            log_normaliser=log_normaliser,
        )
        return fields.batch(slice(0, len(ids)))

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


@partial(jax.jit, static_argnums=(0, 4))
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


def _too_few(count: int) -> UserError:
    return UserError(
        f"no more than {count} different prompts were found; lower texts.num_texts or give "
        "texts.prompts a file with more of them"
    )


def _read_lines(path: str) -> list[str]:
    lines = [line.strip() for line in text_files.read_lines(path) if line.strip()]
    if not lines:
        raise UserError(f"texts.prompts={path} has no prompts; give it one a line")
    return lines
