"""Flipped bits are found at load; a pair's hash is made once of what nobody changed since."""

import dataclasses
import os
import zlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors

from speccascade import importing, pairs
from speccascade.errors import UserError
from speccascade.pairs import kept_hashes
from speccascade.workdir import checksums
from speccascade.workdir.parameter_files import flat
from tests import tiny_pair
from tests.importing import tiny_checkpoint as tiny


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    root = tmp_path_factory.mktemp("imported")
    importing.import_checkpoint(str(tiny.write(root / "source")), str(root / "out"))
    return root


@pytest.fixture
def made(monkeypatch):
    """The pairs whose bytes were read for their hash."""
    found, read = [], pairs.Pair._hash_of_bytes
    monkeypatch.setattr(pairs.Pair, "_hash_of_bytes", lambda p: (found.append(p), read(p))[1])
    return found


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int8])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_a_checksum_is_that_of_the_bytes(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    wanted = f"{zlib.crc32(array.tobytes()):08x}"
    assert checksums.of({"a": jnp.asarray(array), "b": array}) == {"a": wanted, "b": wanted}


def test_a_flipped_bit_of_an_imported_checkpoint_is_found(imported):
    out = str(imported / "out")
    wanted = flat(importing.load(out).params)
    files = [path for path in (imported / "out" / "checkpoints").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    whole, refused = largest.read_bytes(), []
    for at in np.linspace(0, len(whole) - 1, 12, dtype=int):
        largest.write_bytes(bytes([*whole[:at], whole[at] ^ 4, *whole[at + 1 :]]))
        try:
            found = flat(importing.load(out).params)
        except UserError as error:
            refused.append(str(error))
            continue
        for key, leaf in wanted.items():  # what is not a parameter's byte changes none
            np.testing.assert_array_equal(found[key], leaf, err_msg=key)
    largest.write_bytes(whole)
    assert len(refused) > 4 and all("\n" not in message for message in refused)
    assert any("is damaged: " in m and "is not what was written" in m for m in refused)


def test_a_flipped_bit_of_an_exported_pair_is_named(tmp_path):
    pairs.export(tiny_pair.make(), str(tmp_path), {})
    path = tmp_path / "expert.safetensors"
    with safetensors.safe_open(path, "np") as file:
        known = file.metadata()
        assert known == {
            key: f"{zlib.crc32(file.get_tensor(key).tobytes()):08x}" for key in file.keys()
        }
    whole = path.read_bytes()
    for bit in range(8):
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ (1 << bit)]))
        with pytest.raises(UserError, match=r"expert.safetensors is damaged: [\w/]+ is not what"):
            pairs.load(str(tmp_path))
    path.write_bytes(whole)
    pairs.load(str(tmp_path))


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"weights": "int8"}])
@pytest.mark.parametrize("place", ["out", "source"])
def test_a_hash_is_made_once(imported, made, place, options):
    kept_hashes.forget()
    source = dict.fromkeys(pairs.ROLES, str(imported / place)) | options
    first, second = pairs.load(source), pairs.load(source)
    assert first.hash == second.hash == first._hash_of_bytes()
    assert made == [first, first]
    own = jax.device_get(first.params["expert"])
    nudged = jax.tree.map(lambda x: x + np.ones((), x.dtype), own)
    other = dataclasses.replace(second, params={**second.params, "expert": nudged})
    assert other.hash != second.hash and made[-1] is other
    kept_hashes.forget()
    assert pairs.load(source).hash == first.hash and len(made) == 4


def test_what_changes_the_parameters_makes_another_hash(imported, tmp_path, made):
    out, source = (str(imported / name) for name in ("out", "source"))
    every = [
        {"drafter": out, "expert": out},
        {"drafter": out, "expert": out, "dtype": "bfloat16"},
        {"drafter": out, "expert": out, "weights": "int8"},
        {"drafter": out, "expert": out, "middle": out},
    ]
    assert len({pairs.load(one).hash for one in every}) == len(every)
    copy = tiny.write(tmp_path / "copy")
    both = {"drafter": source, "expert": str(copy)}
    before = pairs.load(both).hash
    path = copy / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1  # of a float32, still finite
    path.write_bytes(bytes(data))
    os.utime(path, ns=(1, 1))
    assert pairs.load(both).hash != before


def test_without_a_cache_hashes_are_made_each_time(imported, made, monkeypatch):
    monkeypatch.setattr(kept_hashes, "folder", lambda: None)
    source = dict.fromkeys(pairs.ROLES, str(imported / "out"))
    assert pairs.load(source).hash == pairs.load(source).hash and len(made) == 2
    kept_hashes.forget()


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"weights": "int8"}])
def test_the_weights_of_a_known_pair_may_be_left_unread(imported, made, options):
    kept_hashes.forget()
    source = dict.fromkeys(pairs.ROLES, str(imported / "source")) | options
    whole = pairs.load(source, read=False)  # nobody knows its hash
    assert not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(whole.params))
    known = whole.hash
    unread = pairs.load(source, read=False)
    leaves = jax.tree.leaves(unread.params)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), unread.params) == jax.tree.map(
        lambda x: (x.shape, x.dtype), whole.params
    )
    assert unread.hash == known == pairs.load(source).hash and made == [whole]
    assert (unread.models, unread.tokenizer) == (whole.models, whole.tokenizer)
