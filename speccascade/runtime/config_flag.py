"""Fields of a config as flags: those that its file has, and those that it may leave out."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence

import ml_collections
from absl import flags

from speccascade.errors import UserError
from speccascade.inputs import optional_fields

_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)
_FIELD = re.compile(r"\w+(\[-?\d+\])*(\.[^\W\d]\w*(\[-?\d+\])*)*")
_OF_MODELS = ("models", "synthetic", "growth")  # sections of which each within is a model


class Parser(flags.ArgumentParser):
    """Loads a config, and gives it the fields that flags set and its file leaves out."""

    def __init__(self, inner: flags.ArgumentParser, argv: Sequence[str]):
        """Takes the parser that loads, and the command line with its --config.FIELD=VALUE."""
        self._inner = inner
        matches = map(_OVERRIDE.match, argv)
        self._set = {match[1]: match[2] for match in matches if match}

    def parse(self, path: str) -> ml_collections.ConfigDict:
        """Returns what `get_config()` returns.

        Raises:
          UserError: a flag names a field that its section cannot have, or no field at all.
        """
        for field in self._set:
            if not _FIELD.fullmatch(field):
                raise UserError(f"{field} is no field; write section.field, or settings[0] of many")
        config = self._inner.parse(path)
        if isinstance(config, ml_collections.ConfigDict):  # else the file could not be read
            with config.unlocked():
                for field, value in self._set.items():
                    _open_pair(config, field, value or "")
                    _make(config, field)
        return config

    def flag_type(self) -> str:
        """Returns what help calls it."""
        return self._inner.flag_type()


def _open_pair(config: ml_collections.ConfigDict, field: str, value: str) -> None:
    """Takes away a pair that a config has by name, where flags give sources in its place."""
    section, dot, _ = field.partition(".")
    if section != "pair" or not isinstance(config.get("pair"), str):
        return
    if not dot and not value.startswith("{"):
        return
    del config["pair"]
    if dot:
        config.pair = {"expert": ml_collections.config_dict.placeholder(str)}


def _make(config: ml_collections.ConfigDict, field: str) -> None:
    """Makes a field, so far without value, that a section may have and has not."""
    parts = field.split(".")
    within = config
    for depth, part in enumerate(parts):
        path = parts[:depth]
        if within is None:
            whole = ".".join(path)
            told = f"{whole} has no value that {field} could be in"
            raise UserError(f"{told}; set {whole} as a whole")
        section, *indices = part.replace("]", "").split("[")
        if not isinstance(within, ml_collections.ConfigDict) or not section.isidentifier():
            return  # of no section: ml_collections says so
        if section not in within:
            known = _optional(path, within)
            if section not in known:
                told = optional_fields.unknown(".".join(path), section, {*within, *known})
                raise UserError(told)
            kind = known[section]
            within[section] = (
                ml_collections.ConfigDict()
                if kind is dict
                else ml_collections.config_dict.placeholder(kind)
            )
        within = within[section]
        for index in map(int, indices):
            if not isinstance(within, list | tuple) or not -len(within) <= index < len(within):
                whole = ".".join([*path, section])
                raise UserError(f"{whole} has no [{index}]; set {whole} as a whole")
            within = within[index]


def _optional(path: Sequence[str], section: Mapping) -> Mapping[str, type]:
    """Returns the fields that a section may have, with their types."""
    name = path[-1] if path else ""
    if name == "model" or (len(path) == 2 and path[0] in _OF_MODELS):
        return _of_model(section.get("family", "decoder_only"))
    if len(path) == 2 and path[0] == "fine_tuning":
        return {"model": dict, "mesh": dict}
    return optional_fields.BY_SECTION.get(name, {})


@functools.cache
def _of_model(family: str) -> Mapping[str, type]:
    from speccascade import models  # not at the top: most commands need not wait for JAX here

    if family not in models.FAMILIES:
        return {}
    _, config = models.FAMILIES[family]
    return {field.name: object for field in dataclasses.fields(config)}
