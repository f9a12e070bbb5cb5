"""The decode engine: blocks of draft tokens, scored in one pass, kept by a rule, without flax."""

from speccascade.decode.drafters import (
    CascadeDrafter,
    Draft,
    Drafter,
    LookupDrafter,
    LookupOrModelDrafter,
    ModelDrafter,
    NoDrafter,
)
from speccascade.decode.loop import alone, autoregressive, generate, trace
from speccascade.decode.refill import Answered, stream
from speccascade.decode.rows import Rows, make_rows
from speccascade.decode.sequential import sequence_cascade, token_cascade
from speccascade.decode.state import Output, Stats
from speccascade.decode.step import Decoder
from speccascade.decode.stopping import stop_table

__all__ = [
    "Answered",
    "CascadeDrafter",
    "Decoder",
    "Draft",
    "Drafter",
    "LookupDrafter",
    "LookupOrModelDrafter",
    "ModelDrafter",
    "NoDrafter",
    "Output",
    "Rows",
    "Stats",
    "alone",
    "autoregressive",
    "generate",
    "make_rows",
    "sequence_cascade",
    "stop_table",
    "stream",
    "token_cascade",
    "trace",
]
