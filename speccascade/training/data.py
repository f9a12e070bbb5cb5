"""Tokenised problems, and some of them as a batch of a fixed shape."""

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

from speccascade import text
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
