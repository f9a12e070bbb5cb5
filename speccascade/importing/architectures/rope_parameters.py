"""Rotary positions as a config.json describes them.

In today's spelling (`rope_parameters`, one for each kind of layer in a Gemma 3) or an older one
(`rope_theta`, `rope_scaling`).
"""

import math
from typing import Any

from speccascade.errors import UserError
from speccascade.importing.architectures import known
from speccascade.inputs.fields import Fields


def same_everywhere(
    fields: Fields, description: dict[str, Any], base: float = 10_000.0
) -> dict[str, Any]:
    """Reads rotary positions that are the same in every layer.

    Args:
      fields: the config.json.
      description: of the model so far.
      base: the base of the frequencies where the config.json does not say.

    Returns:
      The fields of the model that are about positions. What YaRN multiplies queries and keys by is
      in the scale of their scores.
    """
    base = fields.number("rope_theta", base, above=0)
    old, new = fields.object("rope_scaling", {}), fields.object("rope_parameters", {})
    given = old if old.values else new
    base, scaling = _rope_parameters(fields, given, base)
    found = {"rope_base": base, "rope_scaling": scaling}
    if scaling is not None and scaling["kind"] == "yarn":
        width = description.get("query_pre_attn_scalar") or description["head_dim"]
        found["query_pre_attn_scalar"] = width / _attention_factor(given, scaling["factor"]) ** 4
    return found


def gemma3(fields: Fields) -> dict[str, Any]:
    """Reads Gemma 3's two kinds of rotary positions."""
    base = fields.number("rope_theta", 1_000_000.0, above=0)
    local_base = fields.number("rope_local_base_freq", 10_000.0, above=0)
    given, scaling = fields.object("rope_parameters", {}), fields.object("rope_scaling", {})
    everywhere, local = given.object("full_attention", {}), given.object("sliding_attention", {})
    if unread := given.unread():
        raise UserError(
            f"{fields.source} has {', '.join(unread)}: not implemented, only full_attention and "
            "sliding_attention"
        )
    # The reference would not scale at all.
    if not scaling.has("rope_type") and scaling.text("type", "default") != "default":
        raise scaling.wrong("type", "called rope_type in a Gemma 3")
    everywhere = everywhere.changed(scaling.values)
    base, scaled = _rope_parameters(fields, everywhere, base)
    if scaled is not None and scaled["kind"] == "yarn":
        name = "rope_type" if everywhere.has("rope_type") else "type"
        raise everywhere.wrong(name, "default, linear or llama3 in a Gemma 3")
    local.expect("type", "default")
    local.expect("rope_type", "default")
    local_base, _ = _rope_parameters(fields, local, local_base)
    return {"rope_base": base, "rope_scaling": scaled, "local_rope_base": local_base}


# Kinds of rotary parameters: their fields here and there.
KINDS: dict[str, dict[str, str]] = {
    "default": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
        "original_positions": "original_max_position_embeddings",
    },
    "yarn": {
        "factor": "factor",
        "low_freq_factor": "beta_slow",
        "high_freq_factor": "beta_fast",
        "original_positions": "original_max_position_embeddings",
    },
}
_OPTIONAL = {"beta_slow": 1.0, "beta_fast": 32.0}


def _rope_parameters(
    fields: Fields, given: Fields, base: float
) -> tuple[float, dict[str, Any] | None]:
    """Reads one set of rotary parameters.

    Args:
      fields: the config.json.
      given: the parameters within it.
      base: the base of the frequencies where they do not say.

    Returns:
      The base, and the fields of a `RopeScaling` or None.

    Raises:
      UserError: something in them is not implemented, or is missing.
    """
    kind = given.choice("rope_type", KINDS.keys(), given.choice("type", KINDS.keys(), "default"))
    base = given.number("rope_theta", base, above=0)
    given.expect("partial_rotary_factor", 1.0)
    scaling = {"kind": kind}
    for ours, theirs in KINDS[kind].items():
        if ours == "original_positions":
            scaling[ours] = _original_positions(fields, given)
        elif theirs in _OPTIONAL:
            scaling[ours] = given.number(theirs, _OPTIONAL[theirs], above=0)
        else:
            scaling[ours] = given.number(theirs, above=0)
    low, high = scaling.get("low_freq_factor", 0), scaling.get("high_freq_factor", 1)
    if not high > low:
        name, above = KINDS[kind]["low_freq_factor"], KINDS[kind]["high_freq_factor"]
        if given.has(above):
            raise given.wrong(above, f"above {name}={low}")
        raise given.wrong(name, f"below {above}={high}")
    if kind == "yarn":
        given.expect("truncate", True)
        if not base > 1:
            raise (given if given.has("rope_theta") else fields).wrong("rope_theta", "above 1")
    given.ignore(*known.ROPE_HARMLESS)
    if unread := given.unread():
        raise UserError(
            f"{given.source} has {', '.join(unread)}: not implemented for rope_type={kind!r}"
        )
    return base, None if kind == "default" else scaling


def _original_positions(fields: Fields, given: Fields) -> int:
    """Reads the context of the first training, which is the whole one where none is named."""
    name = "original_max_position_embeddings"
    for place in (fields, given):
        if place.has(name):
            return place.integer(name, at_least=1)
    return fields.integer("max_position_embeddings", at_least=1)


def _attention_factor(given: Fields, factor: float) -> float:
    """Reads what YaRN multiplies queries and keys by, as `transformers` finds it.

    Args:
      given: the rotary parameters.
      factor: by which the context is stretched.
    """

    def of(share: float) -> float:
        return 0.1 * share * math.log(factor) + 1.0 if factor > 1 else 1.0

    share = given.number("mscale", 0.0, at_least=0)
    all_dim = given.number("mscale_all_dim", 0.0, at_least=0)
    default = of(share) / of(all_dim) if share and all_dim else of(1.0)
    found = given.number("attention_factor", default, above=0)
    if not 1e-6 < found < 1e6:
        name = "attention_factor" if given.has("attention_factor") else "mscale"
        raise given.wrong(name, "such that queries are multiplied by 1e-6 to 1e6")
    return found
