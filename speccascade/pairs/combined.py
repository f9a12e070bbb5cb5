"""A pair of models, each from a place of its own."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax

from speccascade import importing, text
from speccascade.decode.drafters import ROLES
from speccascade.errors import UserError
from speccascade.inputs import paths, values
from speccascade.models import trim
from speccascade.models.axes import param_axes
from speccascade.models.interface import Model, Params
from speccascade.pairs import folder
from speccascade.pairs.pair import Pair
from speccascade.sharding import Layout
from speccascade.sharding.layout import loading
from speccascade.workdir import parameter_files

_LENGTHS = ("context_length", "prompt_length", "answer_length")
_OPTIONS = ("drafters", *_LENGTHS, "chat", "date", "dtype", "weights", "drafter_weights")


def load_model(
    source: str, dtype: str | None = None, weights: str | None = None, **more: Any
) -> importing.Loaded:
    """Loads one model.

    Args:
      source: "shipped:NAME/ROLE" or "DIRECTORY/ROLE", a model of a pair; or the workdir of a
        trained or imported model, or a checkpoint, as `importing.load` takes it.
      dtype: see there.
      weights: see there.
      **more: what else `importing.load` takes; a model of a pair lies whole on the default device.
    """
    part = folder.part(source)
    if part is None:
        return importing.load(source, dtype=dtype, weights=weights, **more)
    found = folder.read_model(folder.path(part[0]), part[1])
    model, params = importing.changed(found.model, found.params, dtype, weights)
    origin = None if found.origin is None else [found.origin, dtype, weights]
    return found._replace(model=model, params=params, origin=origin)


def combine(source: Mapping[str, Any], layout: Layout | None, read: bool = True) -> Pair:
    """Loads the models of `{"drafter": SOURCE, ...}` and fits them together; see `pairs.load`."""
    unknown = sorted(set(source) - {"expert", *ROLES, *_OPTIONS})
    if unknown or source.get("expert") is None:
        named = f", not {', '.join(unknown)}" if unknown else ""
        beside = (*_OPTIONS, *(role for role in ROLES if role != "drafter"))
        raise UserError(
            f"a pair is {{drafter: SOURCE, expert: SOURCE}}, give these two{named}; beside them "
            f"may stand {', '.join(beside)}; where no model drafts, leave out drafter"
        )
    lengths, sources, chat = _lengths(source), _sources(source), chats(source)
    # A model may be larger than one device: its shards are read where they belong.
    where = {
        role: None if layout is None else loading(layout, role, param_axes) for role in sources
    }
    load_as = partial(load_model, dtype=source.get("dtype"), read=read)
    weights = source.get("weights")
    expert = load_as(sources["expert"], weights=weights, shardings=where["expert"])
    found = {"expert": expert}
    load_drafter = partial(
        load_as, weights=source.get("drafter_weights") or weights, expert=expert.params
    )
    for role in sources:
        if role != "expert":
            found[role] = load_drafter(sources[role], shardings=where[role])
    if lengths["context_length"] is None:
        own = (model.context_length for model in found.values())
        lengths["context_length"] = min((n for n in own if n is not None), default=None)
    size = max(
        (_shared_ids(found, role, sources) for role in sources if role != "expert"),
        default=min(expert.model.vocab_size, len(expert.tokenizer.tokens())),
    )
    fitted = {role: _fitted(*found[role][:2], size, read) for role in sources}
    tokenizer = found["expert"][2].trimmed(size)
    if (date := source.get("date")) is not None:
        if not chat:
            raise UserError(
                f"pair.date={date} is for a chat template; set pair.chat or leave it out"
            )
        tokenizer = tokenizer.dated(date)
    pair = Pair(
        name=" + ".join(os.path.basename(os.path.normpath(where)) for where in sources.values()),
        models={role: model for role, (model, _) in fitted.items()},
        params={role: params for role, (_, params) in fitted.items()},
        tokenizer=tokenizer,
        chat=chat,
        named_drafters=named_drafters(source),
        **lengths,
    ).made_of({role: found[role].origin for role in sources})
    if not read and pair.kept_hash is None:
        return combine(source, layout)  # only the weights themselves tell it from another
    return pair


def _fitted(model: Model, params: Params, size: int, read: bool) -> tuple[Model, Params]:
    """Returns a model over `size` token ids, and its parameters as it computes with them."""
    smaller = []

    def fit(params):
        made, params = trim.to_vocabulary(model, params, size)
        smaller.append(made)
        return parameter_files.cast(made, params)

    params = fit(params) if read else jax.eval_shape(fit, params)
    return smaller[0], params


def chats(source: Mapping[str, Any]) -> bool:
    """Returns whether prompts go into the expert's chat template."""
    chat = source.get("chat")
    return False if chat is None else values.boolean("pair.chat", chat)


def named_drafters(source: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the drafters that are no model of their own, by the fields of settings they are."""
    found = {name: of for name, of in _others(source).items() if hasattr(of, "keys")}
    return {name: values.json_ready(of) for name, of in found.items()}


def _others(source: Mapping[str, Any]) -> Mapping[str, Any]:
    others = {} if source.get("drafters") is None else source["drafters"]
    if not hasattr(others, "keys"):
        raise UserError("pair.drafters must be {NAME: SOURCE or fields of a setting, ...}")
    if taken := sorted({"expert", "lookup", *ROLES} & set(others)):
        raise UserError(f"pair.drafters has {taken[0]}, which has a place of its own; rename it")
    return others


def _sources(source: Mapping[str, Any]) -> dict[str, str]:
    """Returns where each model lies, the expert last."""
    found = {role: source.get(role) for role in ROLES}
    found |= {name: of for name, of in _others(source).items() if not hasattr(of, "keys")}
    found = {role: path for role, path in found.items() if path is not None}
    if "drafter" not in found and (role := next((r for r in ROLES if r in found), None)):
        raise UserError(f"a pair with a {role} model needs a drafter; give it both or neither")
    return {role: paths.plain(path) for role, path in {**found, "expert": source["expert"]}.items()}


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


def _lengths(source: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the limits that a pair's source sets, None for others."""
    found = {name: source.get(name) for name in _LENGTHS}
    for name, value in found.items():
        if value is not None:
            least = 2 if name == "context_length" else 1
            found[name] = values.whole(f"pair.{name}", value, least)
    return found
