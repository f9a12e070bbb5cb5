"""Checksums of parameters: what was written is what was read."""

import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from speccascade.errors import UserError
from speccascade.sharding import hosts


def of(leaves: Mapping[str, Any]) -> dict[str, str]:
    """Returns the CRC-32 of each array's bytes, 8 hex digits, by key.

    Arrays that lie on several hosts are gathered piece by piece, so all must call it together.
    """
    with ThreadPoolExecutor() as pool:  # zlib lets other threads run
        far = {key for key, leaf in leaves.items() if hosts.is_far(leaf)}
        near = {key: pool.submit(_crc, leaf) for key, leaf in leaves.items() if key not in far}
        made = {key: _crc(leaves[key]) for key in sorted(far)}
        return {key: made[key] if key in far else near[key].result() for key in leaves}


def check(leaves: Mapping[str, Any], known: Mapping[str, str], source: str, advice: str) -> None:
    """Compares arrays with the checksums with which they were written.

    Not those that lie on several hosts: gathering them takes longer than reading them.

    Args:
      leaves: by key.
      known: from `of`, by key.
      source: what messages call the file.
      advice: what to do about it.

    Raises:
      UserError: names the arrays that differ.
    """
    near = {key: leaf for key, leaf in leaves.items() if key in known and not hosts.is_far(leaf)}
    found = of(near)
    if bad := sorted(key for key in near if found[key] != known[key]):
        more = f" and {len(bad) - 8} more" if len(bad) > 8 else ""
        raise UserError(
            f"{source} is damaged: {', '.join(bad[:8])}{more} is not what was written; {advice}"
        )


def _crc(leaf: Any) -> str:
    crc = 0
    for piece in hosts.pieces(leaf):
        crc = zlib.crc32(np.ascontiguousarray(piece).reshape(-1).view(np.uint8), crc)
    return f"{crc:08x}"
