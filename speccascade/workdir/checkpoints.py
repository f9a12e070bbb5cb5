"""What a workdir of a trained or imported model holds, and how a model is read back from one.

config.json      task, tokenizer, model and train sections of the config it was made from
tokenizer.json   the tokenizer (an imported one: its own files)
model.json       the model's description, as `speccascade.models.build` takes it
checkpoints/     Orbax: params, their checksums, optimiser state and step, the last two kept
metrics.jsonl    losses, speed and validation figures; the same as TensorBoard events in tb/
data/            tokenised problems, read while their texts are the same; may be deleted

An imported model has the first four, without optimiser state; its config.json is that of the
checkpoint that it came from, and import.json (`importing/writing.py`) tells which that was.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from speccascade import models, text
from speccascade.errors import UserError
from speccascade.inputs import paths, text_files
from speccascade.models.interface import Model, Params
from speccascade.models.loading import Shardings, default_sharding
from speccascade.text import Tokenizer
from speccascade.workdir import checksums, sharing
from speccascade.workdir.files import read_json
from speccascade.workdir.parameter_files import flat
from speccascade.workdir.storage import storage

# Orbax reports every save at INFO, which would tear the progress bar apart.
logging.getLogger("absl").setLevel(logging.WARNING)
# It also warns of every directory that it was told to open read-only, and prints the trace of what
# a save failed with, which is raised as well.
logging.getLogger("absl").addFilter(
    lambda r: not r.exc_info and "Given directory is read only" not in str(r.msg)
)


@contextlib.contextmanager
def manager(workdir: str, read_only: bool = False) -> Iterator[ocp.CheckpointManager]:
    """Yields the workdir's checkpoints; what `save` began is written when the context ends.

    A manager that may write removes unfinished checkpoints, so a mere reader beside a running
    training must be `read_only`.

    Raises:
      UserError: the workdir is in a bucket whose client package is not installed, or the last
        checkpoint could not be written.
    """
    if read_only:
        options = ocp.CheckpointManagerOptions(read_only=True, create=False, save_interval_steps=0)
    else:
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
    with storage(workdir):
        made = ocp.CheckpointManager(_directory(workdir), options=options)
    try:
        yield made
    finally:
        finish(made)
        made.close()


def _directory(workdir: str) -> epath.Path:
    workdir = paths.plain(workdir)
    path = epath.Path(workdir) / "checkpoints"
    return path if paths.is_bucket(workdir) else path.absolute()


def save(checkpoints: ocp.CheckpointManager, step: int, params: Params, rest: Any) -> None:
    """Stores `params` and `rest` (optimiser state) as the state after `step` steps.

    They are copied when this returns, and written meanwhile; the save before is complete. What a
    kill finds is a whole checkpoint or none.

    Raises:
      UserError: it, or the one before, could not be written; those before that are intact.
    """
    finish(checkpoints)
    items = ocp.args.Composite(
        params=ocp.args.StandardSave(params),
        rest=ocp.args.StandardSave(rest),
        checksums=ocp.args.JsonSave(checksums.of(flat(params))),
    )
    with _told(checkpoints, step):
        checkpoints.save(step, args=items)


def finish(checkpoints: ocp.CheckpointManager) -> None:
    """Waits for the newest checkpoint to be written.

    Raises:
      UserError: it could not be; those before are intact.
    """
    with _told(checkpoints, checkpoints.latest_step()):
        checkpoints.wait_until_finished()


@contextlib.contextmanager
def _told(checkpoints: ocp.CheckpointManager, step: int | None) -> Iterator[None]:
    try:
        with _once():
            yield
    except Exception as error:  # Orbax and TensorStore raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"checkpoint {checkpoints.directory}/{step} cannot be written ({type(error).__name__}: "
            f"{reason}); those before it are kept, see to it and start again"
        ) from error


@contextlib.contextmanager
def _once() -> Iterator[None]:
    """Leaves what is raised within to be said once.

    Where one array fails, Orbax stops waiting for the others, and TensorStore's threads, done with
    those, print that nobody waits: also later than this ends.
    """
    before = sys.unraisablehook

    def unless_nobody_waits(found: Any) -> None:
        if str(found.exc_value) != "Event loop is closed":
            before(found)

    sys.unraisablehook = unless_nobody_waits
    yield
    sys.unraisablehook = before


def save_params(workdir: str, params: Params, step: int = 0) -> None:
    """Stores the parameters of a model that nobody trains on, which may be large.

    They go in pieces straight from their arrays to the disk. As `save` does it, a compressed copy
    of all of them would be in memory until the end, and take five times as long to write.
    """
    piece = 64 * 2**20
    arguments = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=piece), params)
    with ocp.CheckpointManager(
        _directory(workdir),
        options=ocp.CheckpointManagerOptions(enable_async_checkpointing=False),
        item_handlers={
            "params": ocp.PyTreeCheckpointHandler(use_compression=False),
            "checksums": ocp.JsonCheckpointHandler(),
        },
    ) as checkpoints:
        saved = ocp.args.PyTreeSave(params, arguments, ocdbt_target_data_file_size=piece)
        known = ocp.args.JsonSave(checksums.of(flat(params)))
        checkpoints.save(step, args=ocp.args.Composite(params=saved, checksums=known))


def has(workdir: str, step: int) -> bool:
    """Returns whether a workdir has a whole checkpoint of a step."""
    if not _directory(workdir).exists():
        return False
    with manager(workdir, read_only=True) as checkpoints:
        return checkpoints.latest_step() == step


def restore(
    checkpoints: ocp.CheckpointManager, params_like: Params, rest_like: Any = None
) -> tuple[int, Params, Any]:
    """The newest state: (step, params, rest); rest is None if `rest_like` is.

    The parameters are compared with their checksums, which older checkpoints lack.

    Args:
      checkpoints: From `manager`; must hold a checkpoint.
      params_like: Pytree of the arrays' shapes and dtypes, and of their shardings if given.
      rest_like: The same for the optimiser state.
    """
    step = checkpoints.latest_step()
    items = {"params": ocp.args.StandardRestore(params_like)}
    if rest_like is not None:
        items["rest"] = ocp.args.StandardRestore(rest_like)
    try:
        with _once():
            found = checkpoints.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files
        raise UserError(
            f"checkpoint {checkpoints.directory}/{step} cannot be read, perhaps truncated: delete "
            f"that directory to go on from the one before ({type(error).__name__})"
        ) from error
    if (known := _checksums(checkpoints, step)) is not None:
        where = f"checkpoint {checkpoints.directory}/{step}"
        advice = "delete that directory to go on from the one before, or import the model again"
        checksums.check(flat(found["params"]), known, where, advice)
    return step, found["params"], found["rest"] if rest_like is not None else None


def _checksums(checkpoints: ocp.CheckpointManager, step: int) -> dict[str, str] | None:
    """Returns the checksums of a checkpoint's parameters, None where it has none."""
    path = checkpoints.directory / str(step) / "checksums" / "metadata"  # as Orbax writes JSON
    if not path.exists():
        return None
    try:
        return text_files.parse_object(text_files.read(path), f"{path}")
    except UserError as error:
        raise UserError(f"{path} is damaged ({error}); delete it to do without") from None


def load_model(
    workdir: str, shardings: Shardings | None = None, expert: Params | None = None
) -> tuple[Model, Params, Tokenizer]:
    """Returns the first three of `load`."""
    return load(workdir, shardings, expert)[:3]


def load(
    workdir: str, shardings: Shardings | None = None, expert: Params | None = None
) -> tuple[Model, Params, Tokenizer, dict[str, str] | None]:
    """The model of `workdir`, with its newest parameters, its tokenizer and the checksums.

    The checksums are None of a checkpoint that was written without.

    Args:
      workdir: of a trained or an imported model.
      shardings: how each parameter is laid out, however it was when it was saved; None for whole
        on the default device.
      expert: the parameters of the expert that it drafts for, with which a drafter may share some.

    Raises:
      UserError: something is missing or damaged, or the drafter is another expert's.
    """
    workdir = paths.plain(workdir)
    described = os.path.join(workdir, "model.json")
    model = models.build(read_json(described), described)
    tokenizer = text.load(workdir)
    if not _directory(workdir).is_dir():
        raise UserError(f"{workdir} has no checkpoints; train there first")
    noted = sharing.read(workdir)
    shared = {} if noted is None else sharing.shared(workdir, noted, expert, model.vocab_size)

    def like(path, leaf):
        key = jax.tree_util.keystr(path, simple=True, separator="/")
        sharding = (shardings or default_sharding)(key, leaf.shape)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    with manager(workdir, read_only=True) as checkpoints:
        if checkpoints.latest_step() is None:
            raise UserError(f"{workdir} has no complete checkpoint; train there first")
        shapes = models.shapes(model)
        shapes = {key: value for key, value in shapes.items() if key not in shared}
        step, params, _ = restore(checkpoints, jax.tree_util.tree_map_with_path(like, shapes))
        known = _checksums(checkpoints, step)
    return model, {**params, **shared}, tokenizer, known
