"""Which rows a step reads, and how much of a set is ever held."""

import itertools
import time
import tracemalloc

import numpy as np
import pytest

from speccascade.errors import UserError
from speccascade.training import data, loop, token_rows
from speccascade.training.batches import read_ahead, rows_of_like_length, rows_of_steps
from tests.training import tiny


def test_every_epoch_reads_every_row_once_in_another_order():
    steps = rows_of_steps(10, 4, seed=0)
    epochs = np.concatenate([steps[step] for step in range(10)]).reshape(4, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert len({tuple(e) for e in epochs}) == 4
    again, other = (rows_of_steps(10, 4, seed) for seed in (0, 1))
    np.testing.assert_array_equal(again[7], steps[7])  # of a process that begins there
    assert (other[7] != steps[7]).any()


@pytest.mark.parametrize("seed", [-1, 2**31, 2**64, 2**80])
def test_any_seed_has_an_order(seed):
    rows = np.concatenate([rows_of_steps(100, 10, seed)[step] for step in range(10)])
    assert sorted(rows) == list(range(100)) and (rows != np.arange(100)).any()


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_may_span_several_epochs(count):
    plain, by_length = rows_of_steps(count, 8, 0), rows_of_like_length(np.full(count, 5), 8, 0)
    for order in (plain, by_length):
        rows = np.concatenate([order[step] for step in range(count)])
        assert sorted(rows) == sorted([*range(count)] * 8)
    rows = plain[0]
    assert sorted(rows[:count]) == sorted(rows[count : 2 * count]) == list(range(count))


def test_rows_beside_others_of_like_length():
    lengths = np.random.default_rng(0).integers(1, 100, 1250)
    order = rows_of_like_length(lengths, 10, seed=0)
    steps = np.array([order[step] for step in range(250)])
    assert (np.bincount(steps.ravel()) == 2).all()  # two epochs; the third window is of both
    assert min(len(set(rows)) for rows in steps) > 7  # where one ends, a few come twice
    spread = np.ptp(lengths[steps], axis=1)
    assert spread.mean() < 10 < np.ptp(lengths)  # at random it is about 80
    means = lengths[steps].mean(1)
    assert 0.2 < np.mean(np.diff(means) > 0) < 0.8  # short and long ones in turn
    again = rows_of_like_length(lengths, 10, seed=0)
    for step in (207, 7):
        np.testing.assert_array_equal(again[step], steps[step])


def test_what_is_read_ahead_is_what_the_steps_ask_for():
    for order in (rows_of_steps(4000, 3, 0), rows_of_like_length(np.arange(4000), 3, 0)):
        for first in (0, 1301):
            found = itertools.islice(read_ahead(order, first), 60)
            np.testing.assert_array_equal(list(found), [order[first + i] for i in range(60)])


class Counted:
    """Tokens as a file has them, without a file: what is asked of it is counted."""

    dtype = np.dtype(np.uint16)

    def __init__(self, size):
        self.size, self.read = size, 0

    def __getitem__(self, where):
        self.read += where.stop - where.start
        return np.zeros(where.stop - where.start, self.dtype)


def test_a_set_is_neither_read_nor_held():
    rows, size = 3_000_000, 4
    length = np.full(rows, 10, np.int32)
    flat = Counted(10 * rows)
    held = data.Problems(token_rows.TokenRows(flat, length, 12, 0), length // 2, length)
    held.batch(np.array([0]))  # makes where rows begin
    flat.read = 0
    tracemalloc.start()
    found = read_ahead(rows_of_steps(rows, size, 0).map(held.batch), 500_000)
    shapes = {next(found)["tokens"].shape for _ in range(3)}
    deadline = time.monotonic() + 10
    while flat.read < 7 * size * 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert shapes == {(size, 12)} and flat.read == 7 * size * 10  # three batches and four ahead
    assert most < 2**20  # the rows' numbers alone would be 24 MB


@pytest.mark.slow
def test_one_row_and_larger_batches(tmp_path):
    config = tiny.get_config()
    config.task.train_size = 1
    config.train.update(row_length=256, num_steps=2, eval_every=2, checkpoint_every=2)
    with config.train.ignore_type():
        config.train.sort_by_length = True
    assert loop.train(config, str(tmp_path))["validation_nll"] > 0


@pytest.mark.parametrize("split", ["train", "validation"])
def test_no_rows(tmp_path, split):
    config = tiny.get_config()
    config.task = {"name": "xsum", "path": str(tmp_path / "rows")}
    (tmp_path / "rows").mkdir()
    row = '{"document": "A long text.", "summary": "A text."}\n'
    for name in ("train", "validation"):
        (tmp_path / "rows" / f"{name}.jsonl").write_text("" if name == split else row)
    with pytest.raises(UserError, match=f"{split}.jsonl has no rows"):
        loop.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
