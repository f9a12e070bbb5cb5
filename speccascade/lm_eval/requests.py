"""What a task asks of one answer, its `generation_kwargs`, as the engine takes it."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from speccascade.errors import UserError
from speccascade.inputs import plain_text, values

_MOST = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
# Limits on the distribution, and the value at which each is none; a setting has its own.
_LIMITS = {"top_p": 1, "top_k": 0, "min_p": 0}
_NEUTRAL = {"num_beams": 1, "repetition_penalty": 1}
_KNOWN = ("until", "do_sample", "temperature", *_MOST, *_LIMITS, *_NEUTRAL)


class Asked(NamedTuple):
    """One answer.

    Attributes:
      stop_strings: it ends before the first of these.
      stop_names: special tokens among them, which end it, too.
      temperature: of the setting.
      max_new_tokens: the most tokens.
    """

    stop_strings: tuple[str, ...]
    stop_names: tuple[str, ...]
    temperature: float
    max_new_tokens: int


def read(
    given: Mapping[str, Any], special: Collection[str], temperature: float | None, most: int
) -> Asked:
    """Reads `generation_kwargs`.

    Args:
      given: of a request.
      special: how the tokenizer writes special tokens.
      temperature: of `--model_args`, None where they have none.
      most: the most tokens where the request does not say.

    Raises:
      UserError: a field is unknown or outside its domain, or says other than the setting.
    """
    if unknown := sorted(set(given) - set(_KNOWN)):
        raise UserError(
            f"generation_kwargs has unknown fields {', '.join(unknown)}; known: "
            f"{', '.join(sorted(_KNOWN))}"
        )
    warmth = _temperature(given, temperature)
    for name, none in _LIMITS.items():
        value = given.get(name)
        if warmth > 0 and value not in (None, none, -1):
            raise UserError(
                f"generation_kwargs has {name}={value}; give it to the setting, expert_{name} and "
                f"drafter_{name} in model_args, and leave it out here"
            )
    for name, none in _NEUTRAL.items():
        if given.get(name, none) != none:
            raise UserError(f"generation_kwargs has {name}={given[name]}, which no setting has")
    until = given.get("until")
    strings = plain_text.several(() if until is None else until, "until")
    strings = tuple(dict.fromkeys(string for string in strings if string))
    names = tuple(string for string in strings if string in special)
    found = [given[name] for name in _MOST if given.get(name) is not None]
    return Asked(strings, names, warmth, values.whole("max_gen_toks", [*found, most][0], 1))


def _temperature(given: Mapping[str, Any], own: float | None) -> float:
    """Returns the temperature; `do_sample: false` is greedy, whatever else is said."""
    sample, asked = given.get("do_sample"), given.get("temperature")
    if sample is not None and not isinstance(sample, bool):
        raise UserError(f"do_sample={sample!r} must be true or false")
    if asked is not None:
        asked = values.number("temperature", asked)
        if asked < 0:
            raise UserError(f"temperature={asked} must be at least 0")
    if sample is False:
        asked = 0.0
    if asked is None:
        return own if own is not None else float(bool(sample))
    if own is not None and own != asked:
        raise UserError(
            f"temperature={own:g} in model_args and {asked:g} in generation_kwargs; leave the "
            f"first out, or give --gen_kwargs do_sample={str(own > 0).lower()},temperature={own:g}"
        )
    return asked
