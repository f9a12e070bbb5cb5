"""Tokenised problems as fixed-shape batches whose content depends on the step alone."""

import dataclasses
import hashlib
import json
import pathlib
import sys
import zipfile
from collections.abc import Sequence
from typing import cast

import numpy as np
from etils import epath

from speccascade import randomness, text
from speccascade.errors import UserError
from speccascade.inference.padding import padded
from speccascade.tasks import Example, Task
from speccascade.text import Tokenizer
from speccascade.text.prompt import fit
from speccascade.training import token_rows
from speccascade.training.token_rows import TokenRows


def _room(length: int) -> int:
    """To what a batch is padded: coarsely, since each shape makes a program of its own."""
    return padded(length, step=32, steps=4)


def _widened(tokens: np.ndarray, width: int) -> np.ndarray:
    """The first `width` columns, zeros after the last one there is."""
    return np.pad(tokens[:, :width], ((0, 0), (0, max(0, width - tokens.shape[1]))))


@dataclasses.dataclass(frozen=True)
class Problems:
    """Tokenised problems, one to a row: prompt, worked answer, EOS, padding.

    Attributes:
      tokens: [R, T], an array or `TokenRows`.
      prompt_length: [R] int32.
      length: [R] int32, prompt, answer and EOS together.
      key: a hash of all that they were made of, where that was done now; None of what was read.
    """

    tokens: np.ndarray | TokenRows
    prompt_length: np.ndarray
    length: np.ndarray
    key: str | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, rows: np.ndarray, needed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Returns some rows' fields.

        Args:
          rows: [B], which.
          needed: bool [B], those of which the tokens are read; None for all.
        """
        return {
            "tokens": self._tokens(rows, needed),
            "prompt_length": self.prompt_length[rows].astype(np.int32),
            "length": self.length[rows].astype(np.int32),
        }

    def _tokens(self, rows: np.ndarray, needed: np.ndarray | None) -> np.ndarray:
        if isinstance(self.tokens, TokenRows):
            return self.tokens.take(rows, needed).astype(np.int32)
        return self.tokens[rows].astype(np.int32)  # in memory already

    def answers(self, rows: np.ndarray, needed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Prompts and answers apart, each padded as its longest is, of whatever rows that is.

        Args:
          rows: [B], which.
          needed: bool [B], those of which the tokens are read; None for all.

        Returns:
          `prompt` [B, P], `prompt_length` [B], `answer` [B, A] and `answer_length` [B], EOS
          included, all int32.
        """
        tokens = self._tokens(rows, needed)
        prompt_length = self.prompt_length[rows].astype(np.int32)
        answer_length = self.length[rows].astype(np.int32) - prompt_length
        at = prompt_length[:, None] + np.arange(_room(answer_length.max()))
        return {
            "prompt": _widened(tokens, _room(prompt_length.max())),
            "prompt_length": prompt_length,
            "answer": np.take_along_axis(tokens, np.minimum(at, tokens.shape[1] - 1), axis=1),
            "answer_length": answer_length,
        }


def tokenize(
    examples: Sequence[Example],
    split: str,
    tokenizer: Tokenizer,
    row_length: int,
    answers_begin: bool = False,
) -> Problems:
    """Returns worked answers as tokens.

    A problem of more than `row_length` tokens loses so much of what its prompt may lose; how many
    do is said. With `answers_begin`, answers are texts of their own, as an encoder-decoder writes
    them.

    Raises:
      UserError: a problem is longer even so, or there is none; the message names its `split`.
    """
    if not examples:
        raise UserError(f"split {split} has no examples; give the task some")
    # Prompt and answer apart, as decoding meets them.
    answers = tokenizer.encode_answers([e.answer for e in examples], answers_begin)
    rooms = [row_length - len(answer) - 1 for answer in answers]
    fitted = fit(tokenizer.encode_prompts, [e.prompt for e in examples], rooms)
    if cut := sum(prompt.cut > 0 for prompt in fitted):
        print(
            f"{cut} of {len(fitted)} prompts of split {split} are cut to train.row_length="
            f"{row_length}",
            file=sys.stderr,
            flush=True,
        )
    prompts = [prompt.ids for prompt in fitted]
    prompt_length = np.array([len(p) for p in prompts], np.int32)
    length = prompt_length + np.array([len(a) + 1 for a in answers], np.int32)
    if length.max() > row_length:
        raise UserError(
            f"a problem of split {split} has {length.max()} tokens; "
            f"raise train.row_length (now {row_length}) to that"
        )
    end = [tokenizer.eos_ids[0]]
    whole = [prompt + answer + end for prompt, answer in zip(prompts, answers, strict=True)]
    tokens = token_rows.joined(whole, tokenizer.vocab_size, row_length, tokenizer.pad_id)
    return Problems(tokens, prompt_length, length)


def load_or_tokenize(
    path: str,
    task: Task,
    split: str,
    tokenizer: Tokenizer,
    row_length: int,
    answers_begin: bool = False,
) -> Problems:
    """`tokenize` of a whole split, or what `keep` kept of it (gs:// works).

    The task is always asked for its examples: files and code behind it may have changed, and what
    takes long is to make tokens of them.

    Args:
      path: of a .npz of lengths; the tokens are in a file beside it, named after what they are
        made of, of which a disk gives only the rows that are asked for.
      task: whose examples they are.
      split: of the task.
      tokenizer: as for `tokenize`.
      row_length: likewise.
      answers_begin: likewise.
    """
    examples = task.examples(split)
    key = _key(examples, tokenizer, row_length, answers_begin)
    file = epath.Path(path)
    try:
        with file.open("rb") as opened, np.load(opened) as saved:
            if str(saved["key"]) == key:
                length = saved["length"]
                flat = token_rows.read(_beside(file, key))
                if len(flat) == length.sum():
                    tokens = TokenRows(flat, length, row_length, tokenizer.pad_id)
                    return Problems(tokens, saved["prompt_length"], length)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # absent or cut short: made anew below
    made = tokenize(examples, split, tokenizer, row_length, answers_begin)
    return dataclasses.replace(made, key=key)


def keep(path: str, problems: Problems) -> None:
    """Writes what `load_or_tokenize` made for the next start, unless it was read from there."""
    if problems.key is None:
        return
    file = epath.Path(path)
    beside = _beside(file, problems.key)
    file.parent.mkdir(parents=True, exist_ok=True)
    token_rows.write(beside, cast(TokenRows, problems.tokens).flat)
    partial = file.with_name(f"{file.name}.partial")
    with partial.open("wb") as opened:
        prompt_length, length = problems.prompt_length, problems.length
        np.savez(opened, prompt_length=prompt_length, length=length, key=problems.key)
    partial.replace(file)
    for old in file.parent.glob(f"{file.stem}.*.npy"):
        if old.name != beside.name:
            old.unlink()


def _beside(file: epath.Path, key: str) -> epath.Path:
    return file.with_name(f"{file.stem}.{key[:16]}.npy")


def _key(
    examples: Sequence[Example], tokenizer: Tokenizer, row_length: int, answers_begin: bool
) -> str:
    """Returns a hash of all that tokens depend on: texts, tokenizer, and the code of both ends."""
    digest = hashlib.sha256(f"{tokenizer.content_hash} {row_length} {answers_begin}".encode())
    folder = pathlib.Path(text.__file__).parent
    for code in (*sorted(folder.glob("*.py")), *map(pathlib.Path, (__file__, token_rows.__file__))):
        digest.update(code.read_bytes())
    for example in examples:
        part = getattr(example.prompt, "start", None), getattr(example.prompt, "stop", None)
        digest.update(json.dumps([example.prompt, part, example.answer]).encode())
    return digest.hexdigest()


def rows_of_step(step: int, num_rows: int, batch_size: int, seed: int) -> np.ndarray:
    """The rows [batch_size] that training step `step` (from 0) reads.

    Epochs are seeded permutations laid end to end, so that a restart needs nothing but the step.
    """
    at = np.arange(step * batch_size, (step + 1) * batch_size)
    seed, epochs = randomness.folded(seed), at // num_rows
    rows = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        order = _epoch_order(int(epoch), num_rows, seed)
        here = epochs == epoch
        rows[here] = order[at[here] % num_rows]
    return rows


# How many batches' worth of rows are sorted by length at a time.
_WINDOW = 50


def rows_of_like_length(step: int, lengths: np.ndarray, batch_size: int, seed: int) -> np.ndarray:
    """As `rows_of_step`, of rows of like length, so that little of a batch is padding.

    Every epoch leaves out the few rows that fill no batch, others each time.

    Args:
      step: from 0.
      lengths: [R] of all rows, R at least `batch_size`.
      batch_size: rows of a step.
      seed: of the order.
    """
    seed = randomness.folded(seed)
    epoch, index = divmod(step, len(lengths) // batch_size)
    key = (epoch, len(lengths), seed, batch_size)
    if key not in _orders:
        order = _epoch_order(epoch, len(lengths), seed)
        starts = range(0, len(order), _WINDOW * batch_size)
        windows = [order[start : start + _WINDOW * batch_size] for start in starts]
        order = np.concatenate([w[np.argsort(lengths[w], kind="stable")] for w in windows])
        batches = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)
        _orders[key] = np.random.default_rng((seed, epoch, 1)).permutation(batches)
    return _orders[key][index]


_orders: dict[tuple[int, ...], np.ndarray] = {}


def _epoch_order(epoch: int, num_rows: int, seed: int) -> np.ndarray:
    key = (epoch, num_rows, seed)
    if key not in _orders:
        if len(_orders) > 3:
            _orders.clear()
        _orders[key] = np.random.default_rng((seed, epoch)).permutation(num_rows)
    return _orders[key]
