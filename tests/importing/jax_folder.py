"""Folders as T5X and Orbax write them, made with tensorstore, flax and Orbax alone."""

import pathlib

import flax.serialization
import numpy as np
import tensorstore


def write_zarr(path: pathlib.Path, array: np.ndarray, chunks=None) -> dict:
    """Writes a zarr folder as T5X does and returns the spec that it keeps in its msgpack file."""
    metadata = {
        "compressor": {"id": "gzip"},
        "shape": list(array.shape),
        "chunks": list(chunks or array.shape),
    }
    spec = {"driver": "zarr", "dtype": array.dtype.name, "metadata": metadata}
    file = {"driver": "file", "path": str(path)}
    store = tensorstore.open({**spec, "kvstore": file}, create=True, open=True).result()
    store.write(array).result()
    return {**spec, "kvstore": {**file, "path": path.name}}


def write_t5x(folder: pathlib.Path, arrays: dict[str, np.ndarray], inside=()) -> pathlib.Path:
    """Writes a T5X checkpoint.

    Args:
      folder: made here.
      arrays: by name, "target/encoder/encoder_norm/scale".
      inside: names, or the ends of names, of those that go into the msgpack file.
    """
    folder.mkdir(parents=True)
    tree: dict = {"state": {"step": np.int32(1_000_000), "param_states": {}}}
    for name, array in arrays.items():
        *path, leaf = name.split("/")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        if name.endswith(tuple(inside)):
            place[leaf] = array
        else:
            rows = -(-array.shape[0] // 2)  # two pieces each
            chunks = (rows, *array.shape[1:])
            place[leaf] = write_zarr(folder / name.replace("/", "."), array, chunks)
    # Adafactor's, beside them.
    state = folder / "state.param_states.encoder.encoder_norm.scale.v"
    tree["state"]["param_states"]["v"] = write_zarr(state, np.ones(3, np.float32))
    written = flax.serialization.msgpack_serialize({"version": 3, "optimizer": tree})
    (folder / "checkpoint").write_bytes(written)
    return folder
