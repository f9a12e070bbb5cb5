"""Fields of other programs' files: every value is read by its type or refused in one line."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speccascade.errors import UserError
from speccascade.inputs.fields import Fields

FILE = "config.json"


def fields(value):
    return Fields({"x": value}, FILE)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (16, 16),
        (16.0, 16),
        ("16", 16),
        (" +16 ", 16),
        ("1.6e1", 16),
        (np.uint32(16), 16),
        (np.float32(16), 16),
        (np.array(16), 16),
    ],
)
def test_whole_numbers_as_they_are_written(value, read):
    found = fields(value).integer("x")
    assert found == read and type(found) is int


@pytest.mark.parametrize(
    "value",
    [16.5, "16.5", "sixteen", "", "0x10", "1_6", "\u0661", True, np.True_, math.nan, math.inf]
    + ["nan", "1e999", 2**31, -1, 10**400, "9" * 99, "9" * 5000, [16], {"x": 16}, b"16"],
)
def test_what_is_no_whole_number(value):
    with pytest.raises(UserError) as caught:
        fields(value).integer("x")
    message = str(caught.value)
    assert message.startswith("config.json has x=") and len(message) < 200 and "\n" not in message
    assert message.endswith("it must be a whole number from 0 to 2147483647")


@pytest.mark.parametrize(
    ("value", "read"),
    [("1e-05", 1e-5), (1, 1), (".5", 0.5), ("2.", 2.0), (np.float32(0.5), 0.5), (1e38, 1e38)],
)
def test_numbers_as_they_are_written(value, read):
    assert fields(value).number("x") == read
    assert isinstance(fields(1).number("x"), int)  # as it was written
    assert isinstance(fields(10**12).number("x"), float)  # which no int32 holds


@pytest.mark.parametrize("value", [True, "x", math.nan, math.inf, 1e39, -(10**400), "inf", []])
def test_what_is_no_number(value):
    with pytest.raises(UserError, match=r"^config\.json has x=.*; it must be a number$"):
        fields(value).number("x")


def test_limits():
    assert fields(2).integer("x", at_least=2, at_most=2) == 2
    assert fields(-3).integer("x", at_least=-3) == -3
    for value in (1, 3):
        with pytest.raises(UserError, match="a whole number from 2 to 2$"):
            fields(value).integer("x", at_least=2, at_most=2)
    assert fields(0).number("x", at_least=0) == 0
    with pytest.raises(UserError, match="x=0; it must be a number above 0$"):
        fields(0).number("x", above=0)
    with pytest.raises(UserError, match="x=-1; it must be a number of at least 0$"):
        fields(-1).number("x", at_least=0)


def test_booleans():
    for value in (True, np.True_, 1, 1.0):
        assert fields(value).boolean("x") is True
    assert fields(0).boolean("x") is False
    for value in ("true", 2, [], {}, math.nan):
        with pytest.raises(UserError, match="; it must be true or false$"):
            fields(value).boolean("x")


def test_texts_and_choices():
    assert fields("a").text("x") == "a"
    assert fields("a").choice("x", ("a", "b")) == "a"
    assert fields("a").choice("x", {"a": 1}) == 1
    for value in (1, True, ["a"], {"a": 1}, "c"):
        with pytest.raises(UserError, match=r"^config\.json has x=.*: not implemented, only a, b$"):
            fields(value).choice("x", ("a", "b"))
    for value in (1, ["a"], "\ud800", b"a"):
        with pytest.raises(UserError, match="; it must be a text$"):
            fields(value).text("x")


def test_lists():
    assert fields([1, 2.0, "3"]).integers("x") == [1, 2, 3]
    assert fields(np.array([1, 2], np.uint32)).integers("x") == [1, 2]
    assert fields(7).integers("x", alone=True) == [7]
    assert fields([True, np.False_]).booleans("x", length=2) == [True, False]
    assert fields("a").texts("x", alone=True) == ["a"]
    assert fields([0.5]).numbers("x") == [0.5]
    for value in (7, "7", {"7": 7}, [7, None], [[7]], [True]):
        with pytest.raises(UserError, match="; it must be a list, each a whole number from 0 to"):
            fields(value).integers("x")
    with pytest.raises(UserError, match=r"x=\[True\]; it must be a list of 2, each true or false$"):
        fields([True]).booleans("x", length=2)
    with pytest.raises(UserError, match="it must be a text, or a list, each a text$"):
        fields(1).texts("x", alone=True)


def test_objects_name_where_they_lie():
    outer = fields({"factor": "big", "inner": [{"y": 1}, {"y": "z"}]})
    inner = outer.object("x")
    with pytest.raises(UserError, match=r"^config\.json has x\.factor='big'; it must be a number$"):
        inner.number("factor")
    with pytest.raises(UserError, match=r"^config\.json lacks x\.base$"):
        inner.number("base")
    first, second = inner.objects("inner")
    assert first.integer("y") == 1
    with pytest.raises(UserError, match=r"^config\.json has x\.inner\[1\]\.y='z'; it must be"):
        second.integer("y")
    for value in (1, "x", [1]):
        with pytest.raises(UserError, match="; it must be an object$"):
            fields(value).object("x")
    assert fields(None).object("x", {}).unread() == []
    assert fields(None).objects("x", None) is None


def test_null_is_absent_where_it_does_not_mean_something():
    for found in (fields(None), Fields({}, FILE)):
        assert found.integer("x", 5) == 5 and found.text("x", None) is None
        assert found.choice("x", ("a",), "a") == "a" and not found.has("x")
    assert fields(None).number("x", 30.0, null=None) is None
    assert Fields({}, FILE).number("x", 30.0, null=None) == 30.0
    with pytest.raises(UserError, match=r"^config\.json lacks x \(it is null\)$"):
        fields(None).integer("x")


def test_what_must_have_its_one_value():
    for value in (None, False, 0, 0.0, "0"):
        fields(value).expect("x", 0)
    fields(None).expect("x", "silu")
    with pytest.raises(UserError, match=r"^config\.json has x=True: not implemented, only False$"):
        fields(True).expect("x", False)
    with pytest.raises(UserError, match=r"x=nan: not implemented, only 1\.0$"):
        fields(math.nan).expect("x", None, 1.0)
    with pytest.raises(UserError, match=r"x=\[2\]: not implemented, only null$"):
        fields([2]).expect("x", None)


def test_fields_that_nobody_read():
    values = {"a": 1, "b": None, "c": False, "d": {}, "e": [], "f": "", "g": 0, "h\n": 2, "i": 3}
    found = Fields(values, FILE)
    found.integer("a")
    found.ignore("i")
    assert found.unread() == ["'h\\n'"]


def write(folder, data: bytes):
    path = folder / "config.json"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig"])
def test_files_with_a_byte_order_mark_and_without(coding, tmp_path):
    path = write(tmp_path, '{"x": "ä"}'.encode(coding))
    assert Fields.read(path).text("x") == "ä"
    assert Fields.parse('\ufeff{"x": 1}', FILE).integer("x") == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no JSON, perhaps cut short: Expecting value"),
        (b'{"x": 1', "is no JSON, perhaps cut short: Expecting"),
        (b'{"x": "\xff"}', "line 1 is not UTF-8 (byte 0xff)"),
        (b"\xff\xfe{", "line 1 is UTF-16"),
        (b"[1]", "holds no JSON object but [1]"),
        (b"null", "holds no JSON object but None"),
        (b'"' + b"x" * 9999 + b'"', "holds no JSON object but 'xxx"),
        (b"[" * 200_000, "is no JSON: it is nested too deeply"),
        (b'{"x": ' + b"9" * 5000 + b"}", "is no JSON"),
        (b'{"x": 16, "x": 32}', "has 'x' twice, as 16 and 32; keep the one that is meant"),
        (b'{"y": {"x": 16, "x": 32}}', "has 'x' twice"),
    ],
)
def test_files_that_are_damaged(data, message, tmp_path):
    path = write(tmp_path, data)
    with pytest.raises(UserError) as caught:
        Fields.read(path)
    assert str(caught.value).startswith(f"{path} {message}")
    assert len(str(caught.value)) < len(str(path)) + 200
    with pytest.raises(UserError, match="^the config "):
        Fields.read(path, "the config")


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="config.json is missing$"):
        Fields.read(tmp_path / "config.json")
    with pytest.raises(UserError, match=f"^{tmp_path} cannot be read: "):
        Fields.read(tmp_path)


def test_a_field_may_stand_twice_with_one_value():
    assert Fields.parse('{"x": 16, "x": 16}', FILE).integer("x") == 16


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
GETTERS = {
    "integer": lambda found: found.integer("x", at_least=-(2**31)),
    "number": lambda found: found.number("x"),
    "boolean": lambda found: found.boolean("x"),
    "text": lambda found: found.text("x"),
    "choice": lambda found: found.choice("x", ("a", "b")),
    "integers": lambda found: found.integers("x", alone=True),
    "numbers": lambda found: found.numbers("x"),
    "booleans": lambda found: found.booleans("x", length=1),
    "texts": lambda found: found.texts("x", alone=True),
    "object": lambda found: found.object("x"),
    "objects": lambda found: found.objects("x"),
    "expect": lambda found: found.expect("x", 1),
}
TYPES = {
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "text": str,
    "object": Fields,
    "expect": type(None),
}


@pytest.mark.parametrize("getter", GETTERS)
@given(value=JSON)
def test_any_value_is_read_by_its_type_or_refused_in_one_line(getter, value):
    found = Fields.parse(json.dumps({"x": value}), FILE)
    try:
        read = GETTERS[getter](found)
    except UserError as error:
        assert str(error).startswith("config.json ") and "x" in str(error)
        assert len(str(error).splitlines()) == 1
        str(error).encode()
    else:
        assert isinstance(read, TYPES.get(getter, (list, str)))
