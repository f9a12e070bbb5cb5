"""The header's reader against `gguf`'s own, and files that are cut or damaged anywhere."""

import struct

import gguf
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from speccascade.errors import UserError
from speccascade.inputs import gguf_header

Type = gguf.GGUFValueType
BOUNDS = {
    Type.UINT8: (0, 2**8 - 1),
    Type.INT8: (-(2**7), 2**7 - 1),
    Type.UINT16: (0, 2**16 - 1),
    Type.INT16: (-(2**15), 2**15 - 1),
    Type.UINT32: (0, 2**32 - 1),
    Type.INT32: (-(2**31), 2**31 - 1),
    Type.UINT64: (0, 2**64 - 1),
    Type.INT64: (-(2**63), 2**63 - 1),
}
VALUES = {kind: st.integers(*bounds) for kind, bounds in BOUNDS.items()} | {
    Type.FLOAT32: st.floats(width=32, allow_nan=False),
    Type.FLOAT64: st.floats(allow_nan=False),
    Type.BOOL: st.booleans(),
    Type.STRING: st.text(st.characters(codec="utf-8"), max_size=8),
}
FIELDS = st.dictionaries(
    st.text("abc.", min_size=1, max_size=6).map("x.".__add__),
    st.sampled_from(list(VALUES)).flatmap(
        lambda kind: (
            st.tuples(st.just(kind), VALUES[kind])
            | st.tuples(st.just(kind), st.lists(VALUES[kind], min_size=1, max_size=5))
        )
    ),
    max_size=5,
)
TENSORS = {
    "a": ((3, 64), gguf.GGMLQuantizationType.Q8_0),
    "b": ((2, 2, 32), gguf.GGMLQuantizationType.F16),
    "c": ((5,), gguf.GGMLQuantizationType.F32),
    "d": ((1, 256), gguf.GGMLQuantizationType.Q4_K),
}


def write(path, fields=None, alignment=None, endian=gguf.GGUFEndian.LITTLE):
    path.unlink(missing_ok=True)
    writer = gguf.GGUFWriter(str(path), "llama", endianess=endian)
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    for key, (kind, value) in (fields or {}).items():
        inner = kind if isinstance(value, list) else None
        writer.add_key_value(key, value, Type.ARRAY if inner is not None else kind, inner)
    for name, (shape, kind) in TENSORS.items():
        block, size = gguf.GGML_QUANT_SIZES[kind]
        data = np.zeros((*shape[:-1], shape[-1] // block * size), np.uint8)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("header") / "a.gguf"


@hypothesis.given(fields=FIELDS, alignment=st.sampled_from([None, 8, 32, 64]))
def test_it_reads_what_the_library_reads(path, fields, alignment):
    header, theirs = gguf_header.read(write(path, fields, alignment)), gguf.GGUFReader(path)
    values = {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert repr(header.metadata) == repr(values)  # the types too
    for key, (_, value) in fields.items():
        assert header.metadata[key] == value
    assert [(t.name, t.shape, t.kind, t.offset, t.nbytes) for t in header.tensors] == [
        (t.name, tuple(t.shape[::-1].tolist()), t.tensor_type.name, t.data_offset, t.n_bytes)
        for t in theirs.tensors
    ]


def test_every_type_of_value_was_tried():
    assert {*VALUES, Type.ARRAY} == set(Type)


def entry(key, kind, value):
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value


def text(value):
    return struct.pack("<Q", len(value)) + value


def file(*entries, version=3, tensors=b"", num_tensors=0):
    counts = struct.pack("<IQQ", version, num_tensors, len(entries))
    return b"GGUF" + counts + b"".join(entries) + tensors


def tensor(name=b"a", shape=(32,), kind=0, offset=0):
    axes = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return text(name) + axes + struct.pack("<IQ", kind, offset)


def test_arrays_in_arrays_and_empty_ones(path):
    inner = struct.pack("<IQ", Type.UINT8, 2) + b"\1\2" + struct.pack("<IQ", Type.STRING, 0)
    path.write_bytes(file(entry("x", Type.ARRAY, struct.pack("<IQ", Type.ARRAY, 2) + inner)))
    assert gguf_header.read(path).metadata == {"x": [[1, 2], []]}


def test_the_older_version_reads_alike(path):
    header = gguf_header.read(write(path, {"x.a": (Type.STRING, "hi")}))
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<I", 2)
    path.write_bytes(data)
    assert gguf_header.read(path) == header


def test_a_type_of_tensor_that_the_library_does_not_know(path):
    path.write_bytes(file(tensors=tensor(kind=250) + bytes(64), num_tensors=1))
    (found,) = gguf_header.read(path).tensors
    assert (found.kind, found.nbytes, found.shape) == ("type 250", None, (32,))


U32 = struct.pack("<I", 5)
DEEP = struct.pack("<IQ", Type.ARRAY, 1) * 10_000
BAD = {
    "no map": (b"", "it is empty"),
    "no magic": (b"hello, this is no model", "it begins with b'hell'"),
    "big endian": (b"GGUF" + struct.pack(">I", 3) + bytes(16), "big-endian byte order"),
    "old": (file(version=1), "is GGUF of version 1, which is not read, only 2 and 3"),
    "new": (file(version=4), "is GGUF of version 4"),
    "value": (file(entry("x", 99, b"")), "has the unknown type 99"),
    "deep": (file(entry("x", Type.ARRAY, DEEP)), "has the unknown type 9"),
    "twice": (file(entry("x", Type.UINT32, U32), entry("x", Type.UINT32, U32)), "'x' twice"),
    "text": (file(entry("x", Type.STRING, text(b"\xff"))), "is not UTF-8"),
    "long text": (file(entry("x", Type.STRING, struct.pack("<Q", 2**63))), "go beyond its"),
    "many": (
        file(entry("x", Type.ARRAY, struct.pack("<IQ", Type.FLOAT32, 2**62))),
        "go beyond its",
    ),
    "alignment": (file(entry("general.alignment", Type.UINT32, U32)), "is 5, no power of two"),
    "tensor twice": (
        file(tensors=tensor() * 2 + bytes(256), num_tensors=2),
        "it has tensor 'a' twice",
    ),
    "tensor cut": (file(tensors=tensor(offset=64), num_tensors=1), "tensor 'a' ends at byte"),
    "rows": (file(tensors=tensor(shape=(2, 33), kind=8), num_tensors=1), "rows of 33, not of 32s"),
    "axes": (file(tensors=tensor(shape=(1,) * 5), num_tensors=1), "tensor 'a' has 5 axes"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(path, name):
    data, words = BAD[name]
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        gguf_header.read(path)
    assert words in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_big_endian_files_of_the_library_are_refused(path):
    with pytest.raises(UserError, match="big-endian"):
        gguf_header.read(write(path, endian=gguf.GGUFEndian.BIG))


@hypothesis.given(data=st.data())
def test_a_cut_file_is_one_line(path, data):
    fields = {"x.a": (Type.STRING, ["one", "two"]), "x.b": (Type.INT16, [1, 2])}
    whole = write(path, fields).read_bytes()
    end = max(t.offset + t.nbytes for t in gguf_header.read(path).tensors)
    path.write_bytes(whole[: data.draw(st.integers(0, end - 1))])
    with pytest.raises(UserError, match="no GGUF file or is cut short") as error:
        gguf_header.read(path)
    assert "\n" not in str(error.value)


@hypothesis.given(data=st.data())
def test_a_damaged_file_is_read_or_one_line(path, data):
    whole = bytearray(write(path, {"x.a": (Type.STRING, ["one", "two"])}).read_bytes())
    for place in data.draw(st.lists(st.integers(0, 400), min_size=1, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        gguf_header.read(path)
    except UserError as error:
        assert "\n" not in str(error)
