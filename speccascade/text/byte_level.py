"""The byte-level alphabet: a printable character for every byte (Radford et al. 2019)."""


def _byte_of_char() -> dict[str, int]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(b): b for b in printable}
    others = (b for b in range(256) if b not in set(printable))
    table.update({chr(256 + n): b for n, b in enumerate(others)})
    return table


_BYTE_OF_CHAR = _byte_of_char()


def to_bytes(token: str) -> bytes:
    """Returns the bytes that a token of a byte-level vocabulary stands for.

    A token with characters outside the alphabet is no byte-level token but plain text.
    """
    try:
        return bytes(_BYTE_OF_CHAR[c] for c in token)
    except KeyError:
        return token.encode()
