import dataclasses
import json
from typing import ClassVar

import numpy as np
import pytest
from ml_collections import ConfigDict

from speccascade import tasks, text
from speccascade.errors import UserError
from speccascade.inference.padding import padded
from speccascade.tasks import Example
from speccascade.training import data, token_rows
from tests.training import tiny


@pytest.fixture(scope="module")
def task():
    return tasks.make(tiny.get_config().task)


@pytest.fixture(scope="module")
def tokenizer(task):
    return text.train((e.prompt + e.answer for e in task.examples("train")), 320)


def test_rows_are_prompt_answer_eos_padding(task, tokenizer):
    problems = data.tokenize(task.examples("test"), "test", tokenizer, 160)
    assert problems.tokens.shape == (10, 160)
    for row, prompt, whole, example in zip(
        problems.tokens,
        problems.prompt_length,
        problems.length,
        task.examples("test"),
        strict=True,
    ):
        assert tokenizer.decode(row[:prompt]) == example.prompt
        assert tokenizer.decode(row[prompt : whole - 1]) == example.answer
        assert row[whole - 1] == tokenizer.eos_ids[0] and (row[whole:] == tokenizer.pad_id).all()


def test_long_texts_are_cut_to_the_row(tmp_path, tokenizer, capsys):
    rows = [{"document": "pens " * n, "summary": "Pens."} for n in (3, 400)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"name": "xsum", "path": str(tmp_path), "format": "t5"}
    problems = data.tokenize(tasks.make(ConfigDict(config)).examples("test"), "test", tokenizer, 60)
    texts = [
        tokenizer.decode(row[:n]) for row, n in zip(problems.tokens, problems.length, strict=True)
    ]
    assert texts[0] == "summarize: pens pens pensPens."
    assert texts[1].startswith("summarize: pens pens ") and texts[1].endswith("Pens.")
    assert 55 <= problems.length[1] <= 60
    assert "1 of 2 prompts of split test are cut to train.row_length=60" in capsys.readouterr().err


def test_too_short_rows(task, tokenizer):
    with pytest.raises(UserError, match="raise train.row_length"):
        data.tokenize(task.examples("test"), "test", tokenizer, 20)


def loaded(path, *more):
    """Returns tokens as a start has them, and keeps them for the next."""
    problems = data.load_or_tokenize(path, *more)
    data.keep(path, problems)
    return problems


def test_saved_rows_are_reused_unless_damaged(task, tokenizer, tmp_path, monkeypatch):
    path = str(tmp_path / "data" / "test.npz")
    fresh = loaded(path, task, "test", tokenizer, 160)
    with monkeypatch.context() as patched:
        patched.delattr(data, "tokenize")  # they must be read
        saved = loaded(path, task, "test", tokenizer, 160)
    np.testing.assert_array_equal(fresh.tokens, saved.tokens)
    assert isinstance(saved.tokens.flat, np.memmap) and saved.tokens.flat.dtype == np.uint16
    (beside,) = (tmp_path / "data").glob("test.*.npy")
    for cut in (path, beside):
        whole = open(cut, "rb").read()
        with open(cut, "wb") as out:
            out.write(whole[: len(whole) // 2])
        again = loaded(path, task, "test", tokenizer, 160)
        np.testing.assert_array_equal(fresh.tokens, again.tokens)
        assert open(cut, "rb").read() == whole


def test_rows_of_tokens_are_those_of_a_padded_array():
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 70_000, n).tolist() for n in (3, 0, 9, 1)]
    found = token_rows.joined(rows, 70_000, 9, pad=7)
    padded_rows = np.array([row + [7] * (9 - len(row)) for row in rows])
    assert found.shape == padded_rows.shape and len(found.flat) == 13
    np.testing.assert_array_equal(list(found), padded_rows)
    for indices in ([2, 0, 2], [1], []):
        wanted = np.array(indices, int)
        np.testing.assert_array_equal(found[wanted], padded_rows[wanted])


class Read(np.ndarray):
    """Tokens that note which of them are read."""

    seen: ClassVar[list[int]] = []

    def __getitem__(self, index):
        self.seen.extend(range(index.start, index.stop))
        return np.asarray(self)[index]


def test_only_rows_that_are_needed_are_read():
    whole = token_rows.joined([[1, 2, 3], [4, 5], [6, 7, 8, 9], [10, 11]], 99, 6, pad=0)
    flat = np.arange(1, 12).astype(np.int32).view(Read)
    tokens = token_rows.TokenRows(flat, whole.length, 6, 0)
    held = data.Problems(tokens, np.array([1, 1, 2, 1]), whole.length)
    rows, needed = np.array([3, 0, 2]), np.array([True, False, True])
    for part in ("batch", "answers"):
        Read.seen.clear()
        expected = getattr(dataclasses.replace(held, tokens=whole), part)(rows)
        found = getattr(held, part)(rows, needed)
        assert sorted(Read.seen) == [5, 6, 7, 8, 9, 10]  # rows 2 and 3
        for name, value in expected.items():
            assert found[name].shape == value.shape
            np.testing.assert_array_equal(found[name][needed], value[needed])


class Task:
    """A task of rows that a test changes."""

    def __init__(self, *rows):
        self.rows = rows

    def examples(self, split):
        return [Example(i, prompt, answer, 0) for i, (prompt, answer) in enumerate(self.rows)]


ROWS = (("one ", "two"), ("three ", "four"))


@pytest.mark.parametrize(
    "changed",
    [
        (("one ", "two"), ("three ", "five")),  # a line of a file
        (("one ", "two"), ("three  ", "four")),  # how a task makes a prompt
        (("one", " two"), ("three ", "four")),  # where the prompt ends
        (("three ", "four"), ("one ", "two")),
        (("one ", "two"),),
    ],
)
def test_changed_rows_are_tokenised_anew(tmp_path, changed):
    path, tokenizer = str(tmp_path / "data" / "train.npz"), text.train(["one two three four"], 270)
    loaded(path, Task(*ROWS), "train", tokenizer, 40)
    found = loaded(path, Task(*changed), "train", tokenizer, 40)
    expected = data.tokenize(Task(*changed).examples("train"), "train", tokenizer, 40)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.prompt_length, expected.prompt_length)
    assert len(list((tmp_path / "data").iterdir())) == 2  # nothing of what they were before


def test_another_tokenizer_row_length_or_code_tokenises_anew(tmp_path, monkeypatch):
    path = str(tmp_path / "data" / "train.npz")
    tokenizer, other = text.train(["one two"], 262), text.train(["three four"], 262)
    loaded(path, Task(*ROWS), "train", tokenizer, 40)
    found = loaded(path, Task(*ROWS), "train", other, 40)
    expected = data.tokenize(Task(*ROWS).examples("train"), "train", other, 40)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    assert loaded(path, Task(*ROWS), "train", other, 50).tokens.shape == (2, 50)
    code = tmp_path / "code"
    code.mkdir()
    (code / "__init__.py").write_text("# another version")
    monkeypatch.setattr(text, "__file__", str(code / "__init__.py"))
    monkeypatch.delattr(data, "tokenize")
    with pytest.raises(NameError, match="tokenize"):
        loaded(path, Task(*ROWS), "train", other, 50)


def test_prompts_and_answers_apart(task, tokenizer):
    problems = data.tokenize(task.examples("test"), "test", tokenizer, 160)
    batch = problems.answers(np.array([3, 0]))
    for row, (prompt, answer) in enumerate(zip(batch["prompt"], batch["answer"], strict=True)):
        example = task.examples("test")[(3, 0)[row]]
        assert tokenizer.decode(prompt[: batch["prompt_length"][row]]) == example.prompt
        whole = answer[: batch["answer_length"][row]]
        assert tokenizer.decode(whole[:-1]) == example.answer
        assert whole[-1] == tokenizer.eos_ids[0]
    for name in ("prompt", "answer"):
        width, longest = batch[name].shape[1], batch[f"{name}_length"].max()
        assert width == padded(int(longest), 32, 4)
