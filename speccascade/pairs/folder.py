"""Exported pairs: directories of

    pair.json             name, the models' descriptions, limits of length, how they were trained
    tokenizer.json        the tokenizer (an imported one: its own files)
    ROLE.safetensors      parameters of the drafter, the expert and whatever other model there is;
                          see `parameter_files.py`

Of a drafter that shares its expert's embedding only the drafter is exported: pair.json names the
expert, which has tokenizer and embedding.

The pairs that come with the package lie in `speccascade/shipped/`.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from speccascade import importing, models, text
from speccascade.errors import UserError
from speccascade.inputs import paths
from speccascade.inputs.fields import Fields
from speccascade.models import trim
from speccascade.models.interface import Model, Params
from speccascade.models.shrink import SHARED
from speccascade.pairs.pair import Pair
from speccascade.workdir import parameter_files

_SHIPPED = os.path.join(os.path.dirname(os.path.dirname(__file__)), "shipped")
_SCHEME = "shipped:"


def path(source: str | os.PathLike) -> str:
    """Returns where "shipped:NAME" lies, or the directory itself."""
    source = paths.plain(source)
    name = source.removeprefix(_SCHEME)
    if name == source:
        return source
    known = sorted(os.listdir(_SHIPPED)) if os.path.isdir(_SHIPPED) else []
    if name not in known:
        has = f"choose one of: {', '.join(known)}" if known else "this copy ships none"
        raise UserError(f"no shipped pair {name!r}; {has}")
    return os.path.join(_SHIPPED, name)


def part(source: str | os.PathLike) -> tuple[str, str] | None:
    """Returns pair and role of a source that is a model of a pair, None of another."""
    source = paths.plain(source)
    directory, _, role = source.rpartition("/")
    inside = directory.startswith(_SCHEME) or os.path.exists(_description(directory))
    return (directory, role) if inside and role else None


_LENGTHS = ("context_length", "prompt_length", "answer_length")
_NO_MODELS = {"name", "chat", "date", "training", *_LENGTHS}  # every other field is a model


class _Described(NamedTuple):
    """What pair.json says."""

    name: str
    lengths: dict[str, Any]
    models: dict[str, Fields]
    chat: bool
    date: str | None

    @property
    def shares(self) -> bool:
        """Whether the expert lies elsewhere, and the drafter has its embedding."""
        return self.models["expert"].has("source")


def _described(directory: str) -> _Described:
    where = _description(directory)
    if not os.path.exists(where):
        raise UserError(
            f"no pair at {directory}: {where} is missing; give shipped:NAME, a directory that "
            "scripts/export_pair.py wrote, or the workdirs of a drafter and an expert"
        )
    try:
        found = Fields.read(where)
        roles = ["expert", *sorted(set(found.values) - _NO_MODELS - {"expert"})]
        return _Described(
            found.text("name"),
            {name: found.integer(name, None, at_least=1) for name in _LENGTHS},
            {role: found.object(role) for role in roles},
            found.boolean("chat", False),
            found.text("date", None),
        )
    except UserError as error:
        raise UserError(f"{error}: it is damaged; export the pair again") from None


def chats(directory: str) -> bool:
    """Returns whether the prompts of a pair go into a chat template."""
    return _described(directory).chat


def read(directory: str) -> Pair:
    """Reads a whole pair.

    Raises:
      UserError: there is none, or it is damaged.
    """
    described = _described(directory)
    if described.shares:
        return _beside(described, directory)
    built = {role: _read(directory, role, described) for role in described.models}
    return Pair(
        name=described.name,
        models={role: model for role, (model, _) in built.items()},
        params={role: params for role, (_, params) in built.items()},
        tokenizer=text.load(directory),
        chat=described.chat,
        **described.lengths,
    ).made_of({role: parameter_files.origin(_file(directory, role)) for role in built})


def read_model(directory: str, role: str) -> importing.Loaded:
    """Loads one model of a pair without reading the others, unless it has a part of theirs."""
    described = _described(directory)
    if role not in described.models:
        raise UserError(f"{directory} has no {role}; it has: {', '.join(sorted(described.models))}")
    if described.shares:
        pair = _beside(described, directory)
        model, params, tokenizer = pair.models[role], pair.params[role], pair.tokenizer
        origin = None  # of two files; such a drafter is small
    else:
        (model, params), tokenizer = _read(directory, role, described), text.load(directory)
        origin = parameter_files.origin(_file(directory, role))
    length = described.lengths["context_length"]
    return importing.Loaded(model, params, tokenizer, length, origin)


def _read(directory: str, role: str, described: _Described) -> tuple[Model, Params]:
    model = _built(described.models[role])
    return model, parameter_files.read(_file(directory, role), model)


def _built(described: Fields) -> Model:
    return models.build(described.values, described.source)


def _beside(described: _Described, directory: str) -> Pair:
    """Loads a drafter and, from where it was found, the expert whose embedding it shares."""
    at = described.models["expert"]
    found = importing.load(at.text("source"), at.text("dtype", None))
    size = found.tokenizer.vocab_size
    expert, params = trim.to_vocabulary(found.model, found.params, size)
    drafter = _built(described.models["drafter"])
    shared = {SHARED: params[SHARED]}
    tokenizer = found.tokenizer
    if described.date is not None:  # an expert elsewhere knows nothing of the pair's
        tokenizer = tokenizer.dated(described.date)
    return Pair(
        name=described.name,
        models={"drafter": drafter, "expert": expert},
        params={
            "drafter": parameter_files.read(_file(directory, "drafter"), drafter, shared),
            "expert": parameter_files.cast(expert, params),
        },
        tokenizer=tokenizer,
        chat=described.chat,
        **described.lengths,
    ).made_of(
        {
            "drafter": parameter_files.origin(_file(directory, "drafter")),
            "expert": found.origin,
        }
    )


def told(directory: str, role: str) -> dict[str, Any]:
    """Returns what a pair's file says of a model's training."""
    training = Fields.read(_description(directory)).object("training")
    return training.object(role, {}).values


def write(
    pair: Pair,
    directory: str,
    notes: Mapping[str, Any],
    expert: str | None = None,
    rounded: bool = False,
) -> None:
    """Writes a pair so that `read` finds it.

    Args:
      pair: what to write.
      directory: made if it is missing; files of an older export are replaced.
      notes: how the pair was trained; JSON-ready.
      expert: where the expert is found, if the drafter shares its embedding: it is not written
        then, and the drafter's matrices are rounded to int8.
      rounded: whether the files hold all matrices rounded to int8, half the bytes; the models
        compute as before.
    """
    if expert is not None and (more := sorted(set(pair.roles) - {"drafter", "expert"})):
        raise UserError(
            f"a drafter that shares its expert's embedding is exported without {', '.join(more)}"
        )
    directory = paths.on_disk(directory, "an exported pair")
    os.makedirs(directory, exist_ok=True)
    described = {role: models.describe(pair.models[role]) for role in pair.roles}
    if expert is None:
        for role in pair.roles:
            parameter_files.write(_file(directory, role), pair.params[role], rounded)
        pair.tokenizer.save(directory)
    else:
        own = {key: leaf for key, leaf in pair.params["drafter"].items() if key != SHARED}
        parameter_files.write(_file(directory, "drafter"), own, rounded=True)
        described["expert"] = {"source": expert, "dtype": described["expert"]["dtype"]}
    own = {name: getattr(pair, name) for name in ("prompt_length", "answer_length")}
    description = {
        "name": pair.name,
        "context_length": pair.context_length,
        **{name: value for name, value in own.items() if value is not None},
        **({"chat": True} if pair.chat else {}),
        **({"date": pair.date} if pair.date else {}),
        **described,
        "training": dict(notes),
    }
    with open(_description(directory), "w") as file:
        json.dump(description, file, indent=1)
        file.write("\n")


def _description(directory: str) -> str:
    return os.path.join(directory, "pair.json")


def _file(directory: str, role: str) -> str:
    return os.path.join(directory, f"{role}.safetensors")
