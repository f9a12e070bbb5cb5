"""Pairs: a drafter and an expert that share a tokenizer; loaded, checked, exported."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

from speccascade.errors import UserError
from speccascade.inputs import paths
from speccascade.pairs import combined, folder
from speccascade.pairs.combined import load_model
from speccascade.pairs.folder import write as export
from speccascade.pairs.pair import ROLES, Pair
from speccascade.sharding import Layout
from speccascade.workdir import notes as training_notes
from speccascade.workdir import sharing

__all__ = [
    "ROLES",
    "Pair",
    "chats",
    "export",
    "export_workdirs",
    "load",
    "load_model",
    "named_drafters",
]


def load(
    source: str | os.PathLike | Mapping[str, Any], layout: Layout | None = None, read: bool = True
) -> Pair:
    """Loads a pair.

    Args:
      source: "shipped:NAME", the directory of an exported pair, or two models,
        `{"drafter": SOURCE, "expert": SOURCE}`, each as `load_model` takes it; the drafter may
        be missing where no model drafts. Beside the two may stand `middle`, the source of what a
        cascade drafts with, and `drafters`, others that a setting may name: `{NAME: SOURCE}`, or
        `{NAME: {FIELD: VALUE, ...}}` with the fields by which a setting would describe a lookup or
        a cascade; `context_length`, `prompt_length` and `answer_length`, the most tokens, see
        `Pair`; `chat`, whether a prompt goes into the expert's chat template; `date`, the day
        that a template is told where it asks for today ("2024-07-26" if none is given); `dtype`, in
        which the models are kept and compute, where not in their own; and `weights`, "int8" to
        round those of all.
      layout: how the pair lies on a mesh; None for one device.
      read: whether the weights are wanted; else the parameters may be shapes alone, if the pair's
        hash is known without them.

    Raises:
      UserError: something is missing, damaged or does not fit together.
    """
    if (models := _models(source)) is not None:
        return combined.combine(models, layout, read).laid_out(layout)
    return folder.read(folder.path(cast(str, source))).laid_out(layout)


def chats(source: str | os.PathLike | Mapping[str, Any]) -> bool:
    """Returns whether prompts of the pair that `load` would load go into a chat template.

    Nothing but a description is read.

    Raises:
      UserError: there is no such pair.
    """
    if (models := _models(source)) is not None:
        return combined.chats(models)
    return folder.chats(folder.path(cast(str, source)))


def named_drafters(source: str | os.PathLike | Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the drafters that the pair that `load` would load names and that are no models.

    Returns:
      By name the fields of a setting that it stands for; see `Pair`.

    Raises:
      UserError: they are not as they must be.
    """
    models = _models(source)
    return {} if models is None else combined.named_drafters(models)


def _models(source: Any) -> Mapping[str, Any] | None:
    """Returns the sources of several models, a config's section too; None for a pair's own."""
    return source if hasattr(source, "keys") else None


def export_workdirs(
    workdirs: Mapping[str, str],
    directory: str,
    name: str,
    notes: Sequence[str] = (),
    dtype: str | None = None,
    chat: bool = False,
    rounded: bool = False,
) -> Pair:
    """Exports the models of two training workdirs under a name.

    Args:
      workdirs: `{"drafter": DIR, "expert": DIR}`, and others by their roles. The
        expert of a distilled drafter may be any source; wherever the pair is loaded it must be
        found again.
      directory: where the pair goes.
      name: what it is called.
      notes: "KEY=VALUE" each, kept beside what the workdirs tell of the training.
      dtype: in which the exported models compute; None for that of their training.
      chat: whether prompts go into the expert's chat template.
      rounded: see `export`.

    Returns:
      The pair as it was written.
    """
    pairs = [note.partition("=") for note in notes]
    if bad := [note for note, (_, equals, _) in zip(notes, pairs, strict=True) if not equals]:
        raise UserError(f"--note={bad[0]} must be KEY=VALUE")
    workdirs = {role: paths.plain(workdir) for role, workdir in workdirs.items()}
    directory = paths.on_disk(directory, "an exported pair")
    shares = sharing.read(workdirs["drafter"]) is not None
    told = {role: _told(workdir) for role, workdir in workdirs.items()}
    source = {**workdirs, **({} if dtype is None else {"dtype": dtype}), "chat": chat}
    pair = dataclasses.replace(load(source), name=name)
    kept = {**{key: value for key, _, value in pairs}, **told}
    export(pair, directory, kept, workdirs["expert"] if shares else None, rounded)
    return load(directory)


def _told(source: str) -> dict[str, Any]:
    """Returns what is known of a model's training, from its pair or its workdir."""
    if (part := folder.part(source)) is None:
        return training_notes.read(source)
    return folder.told(folder.path(part[0]), part[1])
