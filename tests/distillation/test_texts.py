import json
import re
import shutil

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from etils import epath

from speccascade import importing
from speccascade.distillation import texts, writing
from speccascade.distillation.writing import Writer
from speccascade.errors import UserError
from tests.distillation import tiny


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    return importing.load(tiny.expert(tmp_path_factory.mktemp("texts") / "expert"))


def config(**changes):
    return ml_collections.FrozenConfigDict({**tiny.get_config().texts.to_dict(), **changes})


@pytest.fixture(scope="module")
def written(expert, tmp_path_factory):
    directory = epath.Path(tmp_path_factory.mktemp("written"))
    writing.write(Writer(expert, config()), directory)
    return directory


def test_texts_are_prompts_and_answers_of_the_expert(expert, written):
    found = texts.load(written, 20)
    assert len(found) == 20
    prompts = json.loads((written / "prompts.json").read_text())["prompts"]
    assert len(set(prompts)) == len(prompts) == 20
    opening = expert.tokenizer.encode_chat_opening()
    assert expert.tokenizer.chat([{"role": "user", "content": "x"}]).startswith("<|im_start|>user")
    for i, prompt in enumerate(prompts):
        ids = expert.tokenizer.encode_prompts([prompt], chat=True)[0]
        assert ids[: len(opening)] == opening and found.first[i] == len(opening)
        np.testing.assert_array_equal(found.tokens[i, : found.prompt_length[i]], ids)
        assert found.prompt_length[i] == len(ids)
    answers = found.length - found.prompt_length
    assert answers.min() >= 1 and answers.max() <= 12


def test_answers_that_ended_for_want_of_room_are_counted(expert, written, tmp_path, capsys):
    found = texts.load(written, 20)
    ends = [int(row[n - 1]) for row, n in zip(found.tokens, found.length, strict=True)]
    cut = sum(end not in expert.tokenizer.eos_ids for end in ends)
    lengths = found.length - found.prompt_length
    no_room = zip(lengths == 12, ends, strict=True)
    assert cut == sum(full and end not in expert.tokenizer.eos_ids for full, end in no_room)
    assert texts.unfinished(written, 20, expert.tokenizer.eos_ids) == cut > 0
    # Nothing is left to write, and it is said again.
    writing.write(Writer(expert, config()), written)
    told = f"{cut} of 20 answers ended for want of room, .* texts.max_new_tokens=12"
    assert re.search(told, capsys.readouterr().err)


@pytest.mark.parametrize("content", ["[]", '{"prompts": "x", "batches": 0}', '{"prompts": []}'])
def test_notes_of_prompts_that_are_damaged(expert, tmp_path, content):
    (tmp_path / "prompts.json").write_text(content)
    with pytest.raises(UserError, match="prompts.json (holds|has|lacks)"):
        writing.write(Writer(expert, config()), epath.Path(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        *({"temperatures": "0.5"}, {"temperatures": ()}, {"temperatures": (-1.0,)}),
        *({"chat": "false"}, {"seed": None}, {"prompts": 5}, {"batch_size": "x"}),
    ],
    ids=repr,
)
def test_fields_of_another_kind(expert, tmp_path, changes):
    (name,) = changes
    with pytest.raises(UserError, match=f"texts.{name}|5 is no path"):
        Writer(expert, config(**changes))


def test_the_expert_is_read_back_exactly(expert, written):
    found = texts.load(written, 20)
    whole = jax.jit(expert.model.forward)
    logits = np.asarray(whole(expert.params, found.tokens, found.prompt_length))
    features = found.features.take(np.arange(20)).view(jnp.bfloat16).astype(np.float32)
    again = np.asarray(jax.jit(expert.model.head_logits)(expert.params, features))
    position = np.arange(found.tokens.shape[1])
    inside = position < found.length[:, None]
    got = (again - found.log_normaliser[..., None])[inside]
    want = (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))[inside]
    np.testing.assert_allclose(got, want, atol=0.02)  # features are kept in bfloat16
    # A distribution all the same.
    np.testing.assert_allclose(np.exp(got.astype(np.float64)).sum(-1), 1, atol=1e-5)
    # Rows of temperature 0 took the likeliest token each time.
    greedy = position[:-1] >= found.prompt_length[:, None] - 1
    greedy &= position[:-1] < found.length[:, None] - 1
    greedy[1::2] = False
    best = logits.argmax(-1)[:, :-1]
    np.testing.assert_array_equal(best[greedy], found.tokens[:, 1:][greedy])


def test_features_are_read_when_they_are_asked_for(written):
    held_out, found = texts.load(written, 20).split(3)
    assert all(isinstance(part, np.memmap) for part in found.features.parts)
    assert len(held_out.features) == 3 and len(found.features) == len(found) == 17
    whole = np.concatenate([np.load(written / f"0000{i}.npy") for i in range(3)])[3:20]
    rows, needed = np.array([16, 0, 7, 4]), np.array([True, False, True, True])
    batch = found.batch(rows, needed)
    np.testing.assert_array_equal(batch["features"][needed], whole[rows[needed]])
    assert not batch["features"][1].any() and whole[0].any()
    np.testing.assert_array_equal(batch["tokens"], found.tokens[rows])
    # No other row is touched than those that are asked for.
    asked: list[int] = []
    noted = texts.Features([Noted(asked, part) for part in np.split(whole, [5, 11])])
    noted.take(rows, needed)
    assert asked == [5, 2, 4]  # rows of the last part, of the middle one, of the first


class Noted:
    """An array that notes which of its rows are read."""

    def __init__(self, asked, rows):
        self.asked, self.rows = asked, rows
        self.shape, self.dtype = rows.shape, rows.dtype

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        self.asked.append(row % len(self.rows))
        return self.rows[row]


DAMAGES = [("00001.npz", 0.5), ("00001.npz", 0), ("00001.npy", 0.5), ("00001.npy", None)]


@pytest.mark.parametrize(("name", "left"), DAMAGES)
def test_files_that_are_damaged(written, tmp_path, name, left):
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    if left is not None:
        (tmp_path / name).write_bytes(whole[: int(left * len(whole))])
    with pytest.raises(UserError, match="00001.npz or 00001.npy is damaged or missing; put it"):
        texts.load(epath.Path(tmp_path), 20)


def test_features_beside_the_rest_as_they_once_lay(written, tmp_path):
    with np.load(written / "00000.npz") as saved:
        fields = {**saved, "features": np.load(written / "00000.npy")}
    np.savez(tmp_path / "00000.npz", **fields)
    now, then = (texts.load(epath.Path(where), 8) for where in (written, tmp_path))
    for name, value in now.batch(np.arange(8)).items():
        np.testing.assert_array_equal(then.batch(np.arange(8))[name], value)


def test_writing_goes_on_where_it_stopped(expert, written, tmp_path):
    directory = epath.Path(tmp_path / "again")
    shutil.copytree(written, directory)
    before = {p.name: p.read_bytes() for p in directory.iterdir()}
    prompts = json.loads((directory / "prompts.json").read_text())
    (directory / "00001.npz").unlink()
    (directory / "00002.npz").unlink()
    (directory / "00001.partial").write_bytes(b"cut short")
    kept = directory / "00000.npz"
    stamp = kept.stat().mtime
    writing.write(Writer(expert, config()), directory)
    assert kept.stat().mtime == stamp
    assert json.loads((directory / "prompts.json").read_text()) == prompts
    found, expected = (texts.load(where, 20).batch(np.arange(20)) for where in (directory, written))
    for field, value in expected.items():
        np.testing.assert_array_equal(found[field], value)
    assert before.keys() == {p.name for p in directory.iterdir()}


def test_prompts_are_made_up_alike_after_an_interruption(expert, written, tmp_path, monkeypatch):
    prompts, calls = Writer.prompts, []

    def interrupted(self, batch):
        calls.append(batch)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return prompts(self, batch)

    monkeypatch.setattr(Writer, "prompts", interrupted)
    directory = epath.Path(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        writing.write(Writer(expert, config()), directory)
    monkeypatch.undo()
    writing.write(Writer(expert, config()), directory)
    assert (directory / "prompts.json").read_text() == (written / "prompts.json").read_text()


def test_prompts_of_a_file_but_for_those_that_are_held_out(expert, tmp_path):
    lines = [f"What is {i} and {i}?" for i in range(6)]
    (tmp_path / "prompts.txt").write_text("\n".join([lines[0], "", *lines]) + "\n")
    where = epath.Path(tmp_path / "texts")
    c = config(prompts=str(tmp_path / "prompts.txt"), chat=False, num_texts=5)
    writing.write(Writer(expert, c), where, exclude=[lines[2].upper()])
    assert json.loads((where / "prompts.json").read_text())["prompts"] == lines[:2] + lines[3:]
    found = texts.load(where, 5)
    np.testing.assert_array_equal(found.first, found.prompt_length)
    with pytest.raises(UserError, match="no more than 5 different prompts were found; lower"):
        more = ml_collections.FrozenConfigDict({**c.to_dict(), "num_texts": 6})
        writing.check_prompts(Writer(expert, more), epath.Path(tmp_path / "more"), [lines[2]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_texts": 0}, "texts.num_texts=0 must be at least 1"),
        ({"max_new_tokens": 17}, "is 65 and the expert's context 64; lower one of them"),
        ({"prompt_slots": 3}, "texts.prompt_slots=3 leaves no room for a prompt"),
        ({"prompts": "absent.txt"}, "absent.txt is missing"),
    ],
)
def test_what_cannot_be_written(expert, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        Writer(expert, config(**changes))
    assert not (tmp_path / "texts").exists()
