"""Who wrote which token: one prompt decoded under several rules, shown position by position.

`run` decodes and `record` turns the engine's records into plain data; `terminal` and `page` show
them. Behind `scripts/trace.py`.
"""

from speccascade.trace.record import Block, Kind, Reason, Token
from speccascade.trace.tracing import Comparison, Trace, trace_prompt

__all__ = ["Block", "Comparison", "Kind", "Reason", "Token", "Trace", "trace_prompt"]
