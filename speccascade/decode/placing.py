"""Where the arrays of a decode program lie under its layout."""

from typing import Any

import jax
from jax.sharding import PartitionSpec as P

from speccascade.decode.rows import Rows
from speccascade.decode.state import State
from speccascade.decode.step import Decoder
from speccascade.sharding import hosts


def param_shardings(decoder: Decoder) -> dict[str, Any]:
    """Returns the shardings of both models' parameters, `{"drafter": ..., "expert": ...}`."""
    expert = decoder.placement("expert").params(decoder.expert)
    drafter = decoder.drafter.param_shardings(decoder.placement("drafter"))
    return {"drafter": drafter, "expert": expert}


def rows_shardings(decoder: Decoder, rows: Rows) -> Rows:
    """Returns the shardings of a batch, or of its shapes."""
    name: Any = P("batch")
    names = Rows(*(name,) * len(Rows._fields))._replace(stop_table=P())
    return decoder.layout.rows.shardings(names, rows)


def rule_shardings(decoder: Decoder, rules: Any) -> Any:
    """Returns the shardings of rules whose knobs are `[]` or `[B]`."""
    return decoder.layout.rows.shardings(P("batch"), rules)


def state_shardings(decoder: Decoder, state: State) -> State:
    """Returns the shardings of a state, or of its shapes."""
    common = state._replace(drafter=(), expert=())
    made = decoder.layout.rows.shardings(P("batch"), common)
    drafter = decoder.placement("drafter")
    expert = decoder.expert.cache_axes(state.expert)
    return made._replace(
        drafter=decoder.drafter.state_shardings(drafter, state.drafter),
        expert=decoder.placement("expert").shardings(expert, state.expert),
    )


def place(decoder: Decoder, rules: Any, rows: Rows) -> tuple[Any, Rows]:
    """Puts rules and rows where they belong; without a layout they stay as they are."""
    if decoder.layout is None:
        return rules, rows
    shardings = rule_shardings(decoder, rules), rows_shardings(decoder, rows)
    return hosts.put((rules, rows), shardings)


def constrain(decoder: Decoder, state: State) -> State:
    """Lays a traced state out; without a layout it stays as it is."""
    if decoder.layout is None:
        return state
    return jax.lax.with_sharding_constraint(state, state_shardings(decoder, state))
