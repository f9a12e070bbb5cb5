"""Several processes as one program: how they start, exchange, agree and end.

Every process runs the same programs in the same order over one mesh. What only one of them shall
tell, such as what a file holds, goes through `from_first`; what may fail on one alone, through
`agreed`. With one process all of it is a no-op, and arrays stay as they are.
"""

import contextlib
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NoReturn, cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from speccascade.errors import UserError

# How long a process that failed waits for the others to hear of it, in seconds. They may be in the
# middle of something that waits for this process, which can then only end.
PATIENCE = 20.0

_PIECE = 64 * 2**20  # bytes of a large array that are on one device at a time


class _Agreed(UserError):
    """What all processes raise together, so that each may end in the usual way."""


@contextlib.contextmanager
def joined(
    address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> Iterator[None]:
    """Joins this process to the others of the run, before anything has touched a device.

    A process that fails alone says why and ends at once: the others wait for it in some collective,
    and the usual end would wait for them.

    Args:
      address: HOST:PORT of process 0, the coordinator. None where the platform tells all three, as
        Cloud TPU does.
      num_processes: how many processes there are.
      process_id: which one this is, from 0 on.

    Raises:
      UserError: only some of the three are given, or they do not fit together.
    """
    given = {"coordinator": address, "num_processes": num_processes, "process_id": process_id}
    absent = [f"--{name}" for name, value in given.items() if value is None]
    if 0 < len(absent) < len(given):
        raise UserError(f"{', '.join(absent)} not given; give all three or, on Cloud TPU, none")
    if not absent and not 0 <= process_id < num_processes:
        raise UserError(f"--process_id={process_id} must be below --num_processes={num_processes}")
    # It would keep SIGTERM from ending a process; a sweep goes on from its last row anyway.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(address, num_processes, process_id)
    except ValueError as error:  # the platform tells nothing
        raise UserError(
            f"--distributed: {error} Give --coordinator, --num_processes and --process_id"
        ) from None
    try:
        yield
    except (_Agreed, SystemExit):
        raise
    except BaseException as error:
        _leave(error)


def _leave(error: BaseException) -> NoReturn:
    if isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2 if isinstance(error, UserError) else 1)


def is_first() -> bool:
    """Returns whether this is the process that reads and writes for all."""
    return jax.process_index() == 0


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """Runs a block that has to succeed on every process: what one raises, all raise.

    Raises:
      UserError: of the first process that failed.
    """
    if jax.process_count() == 1:
        yield
        return
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    with _patience(failure):
        lines = _exchange("" if failure is None else _line(failure))
    failed = [process for process, line in enumerate(lines) if line]
    if not failed:
        return
    if failure is not None and not isinstance(failure, UserError):
        traceback.print_exception(failure)
    line = lines[failed[0]]
    raise _Agreed(line if set(lines) == {line} else f"process {failed[0]}: {line}") from failure


def _line(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    return f"failed with {type(error).__name__}, see its output"


@contextlib.contextmanager
def _patience(failure: Exception | None) -> Iterator[None]:
    if failure is None:
        yield
        return
    timer = threading.Timer(PATIENCE, _leave, [failure])
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:  # the others are in another collective, or gone
        _leave(failure)
    finally:
        timer.cancel()


def from_first(make: Callable[[], Any]) -> Any:
    """Returns on every process what `make` returned on the first, which alone calls it.

    Args:
      make: returns something JSON-ready.

    Raises:
      UserError: `make` did.
    """
    if jax.process_count() == 1:
        return make()
    text = ""
    with agreed():
        if is_first():
            text = json.dumps(make())
    return json.loads(_exchange(text)[0])


def check_alike(value: str, what: str) -> None:
    """Raises UserError on every process where one has another value of `what` than the first."""
    if jax.process_count() == 1:
        return
    values = _exchange(value)
    if odd := [process for process, found in enumerate(values) if found != values[0]]:
        raise _Agreed(f"process {odd[0]} has another {what} than process 0; give all the same")


def _exchange(text: str) -> list[str]:
    """Returns every process's text."""
    data = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(data.size))
    room = -(-int(lengths.max()) // 1024) * 1024  # few shapes: each is a program
    if not room:
        return [""] * len(lengths)
    every = multihost_utils.process_allgather(np.pad(data, (0, room - data.size)))
    return [bytes(row[:n]).decode() for row, n in zip(every, lengths, strict=True)]


def put(tree: Any, shardings: Any) -> Any:
    """Lays arrays out; of those that every process has whole, each transfers its own shards.

    Args:
      tree: arrays, the same on every process, or arrays of the mesh.
      shardings: a pytree like it.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    return jax.tree.map(_put, tree, shardings)


def ready(tree: Any) -> Any:
    """Puts arrays on the default device ahead of `put`; those for many hosts wait for it."""
    return jax.device_put(tree) if jax.process_count() == 1 else tree


def _put(x: Any, sharding: NamedSharding) -> jax.Array:
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return jax.device_put(x, sharding)
    whole = np.asarray(x)
    return jax.make_array_from_callback(whole.shape, sharding, whole.__getitem__)


def gather(tree: Any) -> Any:
    """Returns arrays as NumPy arrays, whole on every process; all must call it together."""
    return jax.tree.map(np.asarray, whole(tree))


def whole(tree: Any) -> Any:
    """Returns arrays whole on every process; those that already are stay as they are."""
    leaves, structure = jax.tree.flatten(tree)
    far = {i: x for i, x in enumerate(leaves) if is_far(x)}
    if far:
        mesh = next(iter(far.values())).sharding.mesh
        for i, x in zip(far, _replicate(mesh)(list(far.values())), strict=True):
            leaves[i] = x
    return jax.tree.unflatten(structure, leaves)


def is_far(x: Any) -> bool:
    """Returns whether a part of an array lies on other hosts alone."""
    return isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated)


@cache
def _replicate(mesh: Mesh) -> Callable:
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))


def pieces(x: jax.Array) -> Iterator[np.ndarray]:
    """Yields an array in pieces along its first axis, on every process.

    Gathered whole, a large parameter would not fit beside the model.
    """
    if not is_far(x):
        yield np.asarray(x)
        return
    rows = x.shape[0]
    step = max(1, min(rows, _PIECE * rows // x.nbytes))
    for start in range(0, rows, step):
        mesh = cast(NamedSharding, x.sharding).mesh  # as all that lies on several hosts
        yield np.asarray(_piece(mesh, min(step, rows - start))(x, start))


@cache
def _piece(mesh: Mesh, size: int) -> Callable:
    return jax.jit(
        partial(jax.lax.dynamic_slice_in_dim, slice_size=size),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )
