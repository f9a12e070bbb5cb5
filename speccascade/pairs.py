"""A drafter and an expert that share a tokenizer: loaded, checked, exported.

An exported pair is a directory:

    pair.json             name, both models' descriptions, context length, how they were trained
    tokenizer.json        the tokenizer (an imported one: its own files)
    drafter.safetensors   parameters; see `parameter_files.py`
    expert.safetensors    likewise
    middle.safetensors    likewise, where the pair has a middle model

Of a drafter that shares its expert's embedding only the drafter is exported: pair.json names the
expert, which has tokenizer and embedding.

The pairs that come with the package lie in `speccascade/shipped/`.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from speccascade import models, parameter_files, text
from speccascade.errors import UserError
from speccascade.models import trim
from speccascade.models.axes import param_axes
from speccascade.models.interface import Model, Params
from speccascade.models.shrink import SHARED
from speccascade.parameter_files import flat
from speccascade.sharding import Layout, hosts
from speccascade.sharding.layout import loading
from speccascade.text import Tokenizer

if TYPE_CHECKING:
    from speccascade import importing

ROLES = ("drafter", "expert")
MIDDLE = "middle"  # a third role, which a pair may have
_OPTIONS = ("context_length", "chat", "dtype", "weights")
_ONE_DEVICE = "a pair with a middle model decodes on one device; leave out the mesh or the middle"
_SHIPPED = os.path.join(os.path.dirname(__file__), "shipped")


@dataclasses.dataclass(frozen=True)
class Pair:
    """A drafter and an expert over one vocabulary.

    Attributes:
      name: for people.
      drafter: the drafter's model.
      expert: the expert's model.
      params: `{"drafter": ..., "expert": ...}`, in the dtype in which each model computes; beside
        them "middle", where there is one.
      tokenizer: of both.
      context_length: the most tokens, prompt and answer together, that the models were trained on.
      chat: whether a prompt is a user's message, to be put into the tokenizer's chat template.
      layout: how the parameters lie on a mesh; None for one device.
      middle: a model between the two, with which the drafter may draft; None for none.
    """

    name: str
    drafter: Model
    expert: Model
    params: dict[str, Params]
    tokenizer: Tokenizer
    context_length: int
    chat: bool = False
    layout: Layout | None = None
    middle: Model | None = None

    def __post_init__(self):
        if self.chat and self.tokenizer.settings.template is None:
            raise UserError(f"pair {self.name} has no chat template; leave out chat")
        if len({type(getattr(self, role)) for role in self.roles}) > 1:
            # their positions begin elsewhere
            raise UserError(
                f"pair {self.name}: an encoder-decoder and a decoder-only model cannot decode "
                "together; give models of one family"
            )
        for role in self.roles:
            if getattr(self, role).vocab_size != self.tokenizer.vocab_size:
                raise UserError(
                    f"pair {self.name}: the {role} has {getattr(self, role).vocab_size} token ids, "
                    f"the tokenizer {self.tokenizer.vocab_size}; all must share one vocabulary"
                )

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of its models."""
        return ROLES if self.middle is None else (*ROLES, MIDDLE)

    def encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """Returns the ids that the models read of each prompt."""
        return self.tokenizer.encode_prompts(prompts, chat=self.chat)

    def laid_out(self, layout: Layout | None) -> "Pair":
        """Returns the pair with its parameters where a layout has them; None changes nothing."""
        if layout is None:
            return self
        if self.middle is not None:
            raise UserError(_ONE_DEVICE)
        models_of = {role: getattr(self, role) for role in ROLES}
        where = {role: layout.of(role, model).params(model) for role, model in models_of.items()}
        return dataclasses.replace(self, params=hosts.put(self.params, where), layout=layout)

    @property
    def hash(self) -> str:
        """16 hex digits of the models' descriptions and parameters."""
        digest = hashlib.sha256()
        for role in self.roles:
            description = models.describe(getattr(self, role))
            digest.update(json.dumps(description, sort_keys=True).encode())
            for key, leaf in sorted(flat(self.params[role]).items()):
                digest.update(key.encode())
                for piece in hosts.pieces(leaf):
                    digest.update(piece.tobytes())
        return digest.hexdigest()[:16]


def load(source: str | Mapping[str, Any], layout: Layout | None = None) -> Pair:
    """Loads a pair.

    Args:
      source: "shipped:NAME", the directory of an exported pair, or two models,
        `{"drafter": SOURCE, "expert": SOURCE}`, each as `load_model` takes it. Beside the two may
        stand
        `middle`, the source of a third model, between them; `context_length`, the most tokens that
        prompt and answer may have; `chat`, whether a prompt goes into the expert's chat template;
        `dtype`, in which the models are kept and compute, where not in their own; and `weights`,
        "int8" to round those of all.
      layout: how the pair lies on a mesh; None for one device.

    Raises:
      UserError: something is missing, damaged or does not fit together.
    """
    if not isinstance(source, str):
        return _from_models(source, layout).laid_out(layout)
    if source.startswith("shipped:"):
        name = source.removeprefix("shipped:")
        known = sorted(os.listdir(_SHIPPED)) if os.path.isdir(_SHIPPED) else []
        if name not in known:
            has = f"choose one of: {', '.join(known)}" if known else "this copy ships none"
            raise UserError(f"no shipped pair {name!r}; {has}")
    return _from_directory(_folder(source)).laid_out(layout)


def load_model(
    source: str, dtype: str | None = None, weights: str | None = None, **more: Any
) -> "importing.Loaded":
    """Loads one model.

    Args:
      source: "shipped:NAME/ROLE" or "DIRECTORY/ROLE", a model of a pair; or the workdir of a
        trained or imported model, or a checkpoint, as `importing.load` takes it.
      dtype: see there.
      weights: see there.
      **more: what else `importing.load` takes; a model of a pair lies whole on the default device.
    """
    from speccascade import importing

    part = _part(source)
    if part is None:
        return importing.load(source, dtype=dtype, weights=weights, **more)
    pair, role = load(part[0]), part[1]
    if role not in pair.roles:
        raise UserError(f"{part[0]} has no {role}; it has: {', '.join(pair.roles)}")
    model, params = importing.changed(getattr(pair, role), pair.params[role], dtype, weights)
    return importing.Loaded(model, params, pair.tokenizer, pair.context_length)


def _part(source: str) -> tuple[str, str] | None:
    """Returns pair and role of a source that is a model of a pair, None of another."""
    directory, _, role = source.rpartition("/")
    known = role in (*ROLES, MIDDLE)
    if known and (directory.startswith("shipped:") or os.path.exists(_description(directory))):
        return directory, role
    return None


def export(
    pair: Pair,
    directory: str,
    notes: Mapping[str, Any],
    expert: str | None = None,
    rounded: bool = False,
) -> None:
    """Writes a pair so that `load(directory)` finds it.

    Args:
      pair: what to write.
      directory: made if it is missing; files of an older export are replaced.
      notes: how the pair was trained; JSON-ready.
      expert: where the expert is found, if the drafter shares its embedding: it is not written
        then, and the drafter's matrices are rounded to int8.
      rounded: whether the files hold all matrices rounded to int8, half the bytes; the models
        compute as before.
    """
    if pair.middle is not None and expert is not None:
        raise UserError("a drafter that shares its expert's embedding is exported without a middle")
    os.makedirs(directory, exist_ok=True)
    described = {role: models.describe(getattr(pair, role)) for role in pair.roles}
    if expert is None:
        for role in pair.roles:
            parameter_files.write(_file(directory, role), pair.params[role], rounded)
        pair.tokenizer.save(directory)
    else:
        own = {key: leaf for key, leaf in pair.params["drafter"].items() if key != SHARED}
        parameter_files.write(_file(directory, "drafter"), own, rounded=True)
        described["expert"] = {"source": expert, "dtype": described["expert"]["dtype"]}
    description = {
        "name": pair.name,
        "context_length": pair.context_length,
        **({"chat": True} if pair.chat else {}),
        **described,
        "training": dict(notes),
    }
    with open(_description(directory), "w") as file:
        json.dump(description, file, indent=1)
        file.write("\n")


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
      workdirs: `{"drafter": DIR, "expert": DIR}`, and "middle" where there is one. The
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
    from speccascade.training import sharing

    pairs = [note.partition("=") for note in notes]
    if bad := [note for note, (_, equals, _) in zip(notes, pairs, strict=True) if not equals]:
        raise UserError(f"--note={bad[0]} must be KEY=VALUE")
    shares = sharing.read(workdirs["drafter"]) is not None
    told = {role: _told(workdir) for role, workdir in workdirs.items()}
    source = {**workdirs, **({} if dtype is None else {"dtype": dtype}), "chat": chat}
    pair = dataclasses.replace(load(source), name=name)
    kept = {**{key: value for key, _, value in pairs}, **told}
    export(pair, directory, kept, workdirs["expert"] if shares else None, rounded)
    return load(directory)


def _from_models(source: Mapping[str, Any], layout: Layout | None) -> Pair:
    unknown = sorted(set(source) - {*ROLES, MIDDLE, *_OPTIONS})
    if unknown or not set(ROLES) <= set(source):
        named = f", not {', '.join(unknown)}" if unknown else ""
        raise UserError(
            f"a pair is {{drafter: SOURCE, expert: SOURCE}}, give these two{named}; beside them "
            f"may stand {', '.join((*_OPTIONS, MIDDLE))}"
        )
    roles = ROLES if source.get(MIDDLE) is None else (*ROLES, MIDDLE)
    if layout is not None and MIDDLE in roles:
        raise UserError(_ONE_DEVICE)
    # A model may be larger than one device: its shards are read where they belong.
    where = {role: layout and loading(layout, role, param_axes) for role in ROLES}
    load_as = partial(load_model, dtype=source.get("dtype"), weights=source.get("weights"))
    expert = load_as(source["expert"], shardings=where["expert"])
    drafter = load_as(source["drafter"], shardings=where["drafter"], expert=expert.params)
    found = {"drafter": drafter, "expert": expert}
    if MIDDLE in roles:
        found[MIDDLE] = load_as(source[MIDDLE], expert=expert.params)
    size = max(_shared_ids(found, role, source) for role in roles if role != "expert")
    trimmed = {role: trim.to_vocabulary(*found[role][:2], size) for role in roles}
    return Pair(
        name=" + ".join(
            os.path.basename(os.path.normpath(source[role]))
            for role in ("drafter", MIDDLE, "expert")
            if role in roles
        ),
        **{role: trimmed[role][0] for role in roles},
        params={role: parameter_files.cast(*trimmed[role]) for role in roles},
        tokenizer=found["expert"][2].trimmed(size),
        context_length=_context_length(source, (m.context_length for m in found.values())),
        chat=source.get("chat", False),
    )


def _shared_ids(found: Mapping[str, Any], role: str, source: Mapping[str, Any]) -> int:
    """Returns how many token ids a model has with the expert, without rows that only pad.

    Raises:
      UserError: an id is one token for the model of `role` and another for the expert.
    """
    both = (role, "expert")
    common = min(model.vocab_size for model, *_ in found.values())
    tokens = {who: found[who][2].tokens()[:common] for who in both}
    size = max(map(len, tokens.values()))
    for who in both:
        tokens[who] += [b""] * (size - len(tokens[who]))
    for index, (drafts, checks) in enumerate(zip(*(tokens[who] for who in both), strict=True)):
        if drafts != checks:
            raise UserError(
                f"{source[role]} and {source['expert']} have different vocabularies: id "
                f"{index} is {text.show(drafts)} to the {role} and {text.show(checks)} to the "
                "expert; take two models of one family, or train a drafter with the expert's "
                "tokenizer"
            )
    return size


def _context_length(source: Mapping[str, Any], lengths: Iterable[int]) -> int:
    if (given := source.get("context_length")) is not None:
        if not isinstance(given, int) or given < 2:
            raise UserError(f"pair.context_length={given!r} must be a whole number, at least 2")
        return given
    return min(lengths)


def _from_directory(directory: str) -> Pair:
    path = _description(directory)
    try:
        with open(path) as file:
            description = json.load(file)
    except FileNotFoundError:
        raise UserError(
            f"no pair at {directory}: {path} is missing; give shipped:NAME, a directory that "
            "scripts/export_pair.py wrote, or the workdirs of a drafter and an expert"
        ) from None
    except ValueError:
        raise UserError(f"{path} is damaged; export the pair again") from None
    try:
        name, context_length = description["name"], description["context_length"]
        roles = (*ROLES, MIDDLE) if MIDDLE in description else ROLES
        described = {role: description[role] for role in roles}
    except (KeyError, TypeError):
        raise UserError(f"{path} describes no pair; export the pair again") from None
    chat = description.get("chat", False)
    if "source" in described["expert"]:
        return _beside(described, directory, name, context_length, chat)
    built = {role: models.build(described[role]) for role in roles}
    return Pair(
        name=name,
        **built,
        params={
            role: parameter_files.read(_file(directory, role), model)
            for role, model in built.items()
        },
        tokenizer=text.load(directory),
        context_length=context_length,
        chat=chat,
    )


def _beside(described, directory: str, name: str, context_length: int, chat: bool) -> Pair:
    """Loads a drafter and, from where it was found, the expert whose embedding it shares."""
    from speccascade import importing

    found = importing.load(**described["expert"])
    size = found.tokenizer.vocab_size
    expert, params = trim.to_vocabulary(found.model, found.params, size)
    drafter = models.build(described["drafter"])
    shared = {SHARED: params[SHARED]}
    return Pair(
        name=name,
        drafter=drafter,
        expert=expert,
        params={
            "drafter": parameter_files.read(_file(directory, "drafter"), drafter, shared),
            "expert": parameter_files.cast(expert, params),
        },
        tokenizer=found.tokenizer,
        context_length=context_length,
        chat=chat,
    )


def _told(source: str) -> dict[str, Any]:
    """Returns what is known of a model's training, from its pair or its workdir."""
    from speccascade.training import notes

    if (part := _part(source)) is None:
        return notes.read(source)
    with open(_description(_folder(part[0]))) as file:
        return json.load(file)["training"].get(part[1], {})


def _folder(source: str) -> str:
    """Returns where "shipped:NAME" lies, or the directory itself."""
    name = source.removeprefix("shipped:")
    return source if name == source else os.path.join(_SHIPPED, name)


def _description(directory: str) -> str:
    return os.path.join(directory, "pair.json")


def _file(directory: str, role: str) -> str:
    return os.path.join(directory, f"{role}.safetensors")
