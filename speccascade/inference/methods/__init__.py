"""Ways of decoding, one file each. A new one is a file here and a row in `METHODS`."""

from speccascade.errors import UserError
from speccascade.inference.methods.autoregressive import DRAFTER, EXPERT
from speccascade.inference.methods.kernel import KERNEL
from speccascade.inference.methods.oracle import ORACLE
from speccascade.inference.methods.sequence_cascade import SEQUENCE_CASCADE
from speccascade.inference.methods.speculative import SPECULATIVE
from speccascade.inference.methods.token_cascade import TOKEN_CASCADE
from speccascade.inference.methods.twin import TWIN
from speccascade.inference.setting import Method

# The first is what a setting means that names none.
METHODS = {
    method.name: method
    for method in (SPECULATIVE, EXPERT, DRAFTER, TOKEN_CASCADE, SEQUENCE_CASCADE, KERNEL, TWIN)
}


def named(name: str) -> Method:
    """Returns the method of a row, which may be the oracle.

    Raises:
      UserError: there is none of that name.
    """
    found = {**METHODS, ORACLE.name: ORACLE}.get(name)
    if found is None:
        raise UserError(f"method {name!r} is unknown; choose one of: {', '.join(METHODS)}")
    return found


__all__ = [
    "DRAFTER",
    "EXPERT",
    "KERNEL",
    "METHODS",
    "ORACLE",
    "SEQUENCE_CASCADE",
    "SPECULATIVE",
    "TOKEN_CASCADE",
    "TWIN",
    "named",
]
