import ast
import gzip
import json
import pathlib
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import speccascade
from speccascade.errors import UserError
from speccascade.inputs import plain_text, text_files

MARK = b"\xef\xbb\xbf"
ROWS = [{"prompt": "Who?\u2028\x85\x0c é 🙂", "n": [1]}, {"prompt": "a\rb", "n": None}]
LINES = [json.dumps(row, ensure_ascii=False).encode() for row in ROWS]


@pytest.fixture
def written(tmp_path):
    def write(data, name="rows.jsonl"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", MARK])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("last", [True, False])
def test_rows_in_every_spelling(written, end, mark, pack, last):
    data = mark + end.join(LINES) + (end if last else b"")
    name = "rows.jsonl.gz" if pack is gzip.compress else "rows.jsonl"
    assert list(text_files.read_rows(written(pack(data), name))) == [(1, ROWS[0]), (2, ROWS[1])]
    # An archive is known by its content, too, and one that follows another is a part of it.
    twice = pack(data + (b"" if last else end)) + pack(data)
    found = [row for _, row in text_files.read_rows(written(twice, "rows.txt"))]
    assert found == ROWS * 2


@given(st.lists(st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]))))
def test_lines_end_at_line_feeds_alone(texts):
    # Text before an end may itself end in "\r", or begin with a mark: both belong to the end.
    texts = [text.rstrip("\r").lstrip("\ufeff") for text in texts]
    for end in ("\n", "\r\n"):
        assert text_files.lines("".join(text + end for text in texts)) == texts


def test_parquet_rows(written):
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (requirements-tasks.txt)")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = written(b"", "rows.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert list(text_files.read_rows(path)) == [(1, ROWS[0]), (2, ROWS[1])]
    with pytest.raises(UserError, match="rows.parquet is a Parquet file; give text"):
        text_files.read_lines(path)
    whole = path.read_bytes()
    with pytest.raises(UserError, match="rows.parquet is damaged after row 0"):
        list(text_files.read_rows(written(whole[: len(whole) // 2], "rows.parquet")))


def test_parquet_without_its_package(written, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="needs the package pyarrow: pip install"):
        list(text_files.read_rows(written(b"PAR1")))


GOOD = b'{"a": 1}\n'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD + b'{"a": "\xff"}\n', "rows.jsonl line 2 is not UTF-8 .byte 0xff."),
        (MARK + GOOD + b'{"a": "\xe9t"}\n', "line 2 is not UTF-8 .byte 0xe9."),
        (GOOD.decode().encode("utf-16"), "line 1 is UTF-16; save the file as UTF-8"),
        (GOOD.decode().encode("utf-16-be"), "line 1 holds a zero byte"),
        (GOOD + b"\0" * 64, "line 2 holds a zero byte"),
        (GOOD + b'{"a": "\\ud83d"}', r"line 2: a holds half a surrogate pair, '\\ud83d'"),
        (GOOD + b'{"a": [{"b": "x\\uDC00"}]}', "line 2: a holds half a surrogate pair"),
        (GOOD + b'{"\\ud83d": 1}', "line 2: a field's name holds half a surrogate pair"),
        (GOOD + b'{"a": ', "line 2 is no JSON"),
        (GOOD + b'{"a": ' + b"1" * 5000 + b"}", "line 2 is no JSON"),
        (GOOD + b"[" * 100_000, "line 2 is no JSON"),
        (GOOD + b"5", r"line 2 must be a JSON object, not 5 \(int\)"),
        (GOOD + b"null", "line 2 must be a JSON object, not None"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_wrong_is_named_by_file_and_row(written, data, message, packed):
    path = written(gzip.compress(data) if packed else data)
    with pytest.raises(UserError, match=message) as caught:
        list(text_files.read_rows(path))
    assert "\n" not in str(caught.value) and "rows.jsonl" in str(caught.value)


def test_a_whole_surrogate_pair_is_a_character(written):
    path = written(b'{"a": "\\ud83d\\ude42"}')
    assert list(text_files.read_rows(path)) == [(1, {"a": "🙂"})]


def test_a_damaged_archive_is_named_wherever_it_is_damaged(written):
    data = gzip.compress(b"\n".join(LINES) * 20, mtime=0)
    for end in range(len(data)):
        with pytest.raises(UserError, match="rows.gz is a damaged archive .*; copy it again"):
            text_files.read(written(data[:end], "rows.gz"))
    for at in range(10, len(data)):  # behind the header, whose time and name no sum covers
        changed = bytes([*data[:at], data[at] ^ 1, *data[at + 1 :]])
        with pytest.raises(UserError, match="rows.gz is a damaged archive"):
            text_files.read(written(changed, "rows.gz"))


def test_what_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match=f"{re.escape(str(path))} (is missing|cannot be read)"):
            text_files.read(path)


def test_text_of_the_command_line():
    assert text_files.argument("\ufeffWho?", "--prompt") == "Who?"
    with pytest.raises(UserError, match="--prompt holds half a surrogate pair"):
        text_files.argument(b"caf\xe9".decode(errors="surrogateescape"), "--prompt")


@pytest.mark.parametrize(
    ("data", "keys", "kept"),
    [
        (b'{"k": 1}\n{"k": 2}\n', [1, 2], 18),
        (MARK + b'{"k": 1}\r\n\r\n{"k": 2}\r\n', [1, 2], 25),
        (b'{"k": 1}\n{"k": 2}', [1], 9),
        (b'{"k": 1}\n{"k"\n', [1], 9),
        (b'{"k": 1}\n' + b"\0" * 64, [1], 9),
        (b'{"k":\r1}\n', [1], 9),
        (b"", [], 0),
    ],
)
def test_a_journal_and_its_cut_end(written, data, keys, kept):
    rows, found = text_files.read_journal(written(data))
    assert [row["k"] for row in rows] == keys and found == data[:kept]


@pytest.mark.parametrize("line", [b"5", b"[]", b"null", b'"k"'])
@pytest.mark.parametrize("after", [b"", b'{"k": 2}\n'])
def test_a_line_of_a_journal_that_is_no_object_is_named(written, line, after):
    with pytest.raises(UserError, match="line 2 of .*rows.jsonl is no row but"):
        text_files.read_journal(written(b'{"k": 1}\n' + line + b"\n" + after))


@pytest.mark.parametrize("line", [b"\0" * 8, b'{"k"', b"\xff"])
def test_a_damaged_line_inside_a_journal_is_named(written, line):
    with pytest.raises(UserError, match="line 2 of .*rows.jsonl is damaged"):
        text_files.read_journal(written(b'{"k": 1}\n' + line + b'\n{"k": 2}\n'))


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ("Hi?", ("Hi?",)),
        ("", ("",)),
        (np.str_("Hi?"), ("Hi?",)),
        (["Hi?", np.str_("Ho!")], ("Hi?", "Ho!")),
        (np.array(["Hi?", "Ho!"]), ("Hi?", "Ho!")),
        ((text for text in ("a", "b")), ("a", "b")),
        ([], ()),
    ],
)
def test_a_text_is_a_list_of_one(given, texts):
    found = plain_text.several(given, "prompts")
    assert found == texts and {type(text) for text in found} <= {str}


@pytest.mark.parametrize(
    "given",
    [None, 5, b"Hi?", {"a": 1}, {"a"}, pathlib.Path("a"), np.array("a"), True]
    + [[None], [b"Hi?"], ["a", 5], [["a"]], [pathlib.Path("a")], [float("nan")], ["a", "\ud83d"]],
)
def test_what_is_no_text_is_refused_in_one_line(given):
    with pytest.raises(UserError, match=r"prompts(\[\d\])? (must be a|holds half)") as caught:
        plain_text.several(given, "prompts")
    assert "\n" not in str(caught.value)


def test_files_are_read_in_one_place():
    """No module reads text or JSON of its own, or splits lines where Unicode would."""
    root = pathlib.Path(speccascade.__file__).parent
    allowed = {
        "read_text": {
            "benchmark/growth/start.py",  # what Linux says of the process
            "pairs/kept_hashes.py",
            "sharding/host_memory.py",  # likewise
            "web/__init__.py",
            "workdir/bucket.py",
        },
        # of a compiler's and a program's output, and of text on its way to a terminal
        "splitlines": {
            "importing/sources.py",
            "plan/streams.py",
            "runtime/native.py",
            "sharding/hlo.py",
            "sharding/host_memory.py",
            "tasks/debian/lists.py",
            "trace/terminal.py",
        },
        "load": set(),
    }
    for path in root.rglob("*.py"):
        name = str(path.relative_to(root))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = getattr(node.func.value, "id", "")
                if node.func.attr in allowed and (node.func.attr != "load" or owner == "json"):
                    assert name in allowed[node.func.attr], f"{name} line {node.lineno}"
