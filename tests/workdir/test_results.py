import math
import os

import pytest

from speccascade.errors import UserError
from speccascade.workdir import claim, results


def row(key, **more):
    return {"key": key, **more}


def test_rows_are_read_back(tmp_path):
    store = results.Results(tmp_path)
    store.append(row("a", quality=0.5))
    store.append(row("b", quality=None))
    assert results.read(tmp_path) == [row("a", quality=0.5), row("b", quality=None)]
    assert set(results.Results(tmp_path).rows) == {"a", "b"}


@pytest.mark.parametrize("cut", ['{"key": "b", "qual', '{"key": "b"}'])
def test_a_last_line_that_was_cut_short_is_dropped(tmp_path, cut):
    results.Results(tmp_path).append(row("a"))
    with open(tmp_path / results.FILE, "a") as file:
        file.write(cut)
    assert results.read(tmp_path) == [row("a")]
    store = results.Results(tmp_path)
    assert set(store.rows) == {"a"}
    store.append(row("c"))
    assert results.read(tmp_path) == [row("a"), row("c")]


def test_a_damaged_line_before_the_last_is_named_and_kept(tmp_path):
    path = tmp_path / results.FILE
    path.write_text('{"key": "a"}\nnonsense\n{"key": "b"}\n')
    with pytest.raises(UserError, match="line 2 of .* is damaged"):
        results.Results(tmp_path)
    assert path.read_text() == '{"key": "a"}\nnonsense\n{"key": "b"}\n'


@pytest.mark.parametrize("line", ["5", "[]", "null", "{}", '{"key": 5}'])
def test_a_line_that_is_no_row_is_named(tmp_path, line):
    (tmp_path / results.FILE).write_text('{"key": "a"}\n' + line + "\n")
    for reader in (results.read, results.Results):
        with pytest.raises(UserError, match="(line|row) 2 of .*results.jsonl"):
            reader(tmp_path)


def test_nan_never_gets_in(tmp_path):
    store = results.Results(tmp_path)
    with pytest.raises(ValueError):
        store.append(row("a", quality=math.nan))
    assert results.read(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_an_error_that_says_so(tmp_path):
    store = results.Results(tmp_path)
    os.symlink("/dev/full", tmp_path / results.FILE)
    with pytest.raises(UserError, match="No space left on device; what was there is kept"):
        store.append(row("a"))
    assert store.rows == {}


def test_two_processes_in_one_workdir_are_refused(tmp_path):
    with claim.claim(tmp_path / "w"):
        with pytest.raises(UserError, match="another process works in"):
            with claim.claim(tmp_path / "w"):
                pass
    with claim.claim(tmp_path / "w"):
        pass  # free again


def test_a_workdir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to .*file/w"):
        with claim.claim(tmp_path / "file" / "w"):
            pass
