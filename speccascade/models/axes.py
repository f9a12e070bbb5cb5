"""The logical names of parameters' axes, which both families share; `sharding/rules.py` lists them.

Weights are stored `[out, in]`. The product that begins a layer is cut by its outputs, the one that
ends it by its inputs: between the two nothing is exchanged.
"""

import re

from jax.sharding import PartitionSpec as P

_PARAMS = (
    (r"embedding", P("vocab", "embed")),
    (r"head/weight", P("vocab", "embed")),
    (r"head/bias", P("vocab")),
    (r"head/ids", P(None)),
    (r".*query/weight", P("heads", "embed")),
    (r".*query/bias", P("heads")),
    (r".*(key|value)/weight", P("kv_heads", "embed")),
    (r".*(key|value)/bias", P("kv_heads")),
    (r".*output/weight", P("embed", "heads")),
    (r".*(gate|up)/weight", P("mlp", "embed")),
    (r".*(gate|up)/bias", P("mlp")),
    (r".*down/weight", P("embed", "mlp")),
    (r"mlp_\d+/(gate|up)", P(None, "mlp", "embed")),  # of all branches of a routed layer
    (r"mlp_\d+/down", P(None, "embed", "mlp")),
    (r".*router", P(None, "embed")),
    (r".*relative/embedding", P(None, "heads")),
    (r".*(output|down)/bias|.*norm(_\d+)?/scale", P(None)),
)

CACHE = P("batch", "heads", None, None)
"""Keys or values `[B, K, L, H]`."""


def param_axes(key: str) -> P:
    """Returns the logical names of a parameter's axes, from its flat key.

    The two arrays of an `Int8` lie as the matrix would: a scale belongs to a row.
    """
    matrix, _, part = key.rpartition("/")
    if part == "values":
        return param_axes(matrix)
    if part == "scale" and not re.fullmatch(r".*norm(_\d+)?", matrix):
        return P(*param_axes(matrix)[:-1])
    for pattern, names in _PARAMS:
        if re.fullmatch(pattern, key):
            return names
    raise KeyError(f"no logical axes for parameter {key}")
