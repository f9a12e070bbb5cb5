"""Where a row ends: end-of-sequence ids and stop strings, as one automaton over tokens.

A stop string can be cut into tokens in many ways and may begin or end inside one. So the strings
become an automaton over *bytes* (Aho and Corasick 1975), and each token one precomputed move of it:
the device follows one table look-up per token, exactly, wherever a block begins or ends.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from speccascade.errors import UserError
from speccascade.inputs import plain_text

STOP = -1


def stop_table(
    vocab_size: int,
    eos_ids: Iterable[int],
    stop_strings: Sequence[str] = (),
    token_bytes: Callable[[int], bytes] | None = None,
    opening_bytes: Callable[[int], bytes] | None = None,
) -> np.ndarray:
    """Builds the table of moves.

    Args:
      vocab_size: V.
      eos_ids: ids that end a row.
      stop_strings: strings that end a row as soon as the generated text contains one.
      token_bytes: the bytes that an id adds to a text; needed for stop strings.
      opening_bytes: the same of the first id that adds any, in a row whose answer begins a text
        rather than going on with one; None where there is no such row.

    Returns:
      int32 [S, V]: from state s, token v leads to state `table[s, v]`, or ends the row (`STOP`).
      Rows begin in state 0; those whose answer begins a text begin in the last state, which
      `opening_bytes` made.

    Raises:
      UserError: an id outside the vocabulary, or a stop string that is empty or no text.
    """
    eos_ids = list(eos_ids)
    if bad := [i for i in eos_ids if not 0 <= i < vocab_size]:
        raise UserError(f"eos ids {bad} are outside the vocabulary of {vocab_size} tokens")
    stop_strings = plain_text.several(stop_strings, "stop_strings")
    if any(not s for s in stop_strings):
        raise UserError("a stop string is empty; leave it out or give it text")
    moves = _byte_automaton([s.encode() for s in stop_strings])
    opens = bool(stop_strings) and opening_bytes is not None
    table = np.zeros((len(moves) + opens, vocab_size), np.int32)
    if stop_strings:
        tokens = [token_bytes(token) for token in range(vocab_size)]
        _follow(table[: len(moves)], moves, tokens)
    if opens:
        _follow(table[-1:], moves, [opening_bytes(token) for token in range(vocab_size)])
        table[-1, [not data for data in tokens]] = len(moves)  # the text has not begun yet
    table[:, eos_ids] = STOP
    return table


def _follow(table: np.ndarray, moves: list[dict[int, int]], tokens: Sequence[bytes]) -> None:
    """Fills `table` with every token's move from its first states, byte by byte all at once."""
    lengths = np.array([len(data) for data in tokens])
    order = np.argsort(-lengths)  # the tokens that have an nth byte then stand in front
    lengths = lengths[order]
    letters = np.frombuffer(b"".join(tokens[i] for i in order), np.uint8)
    first = np.cumsum(lengths) - lengths
    by_byte = np.zeros((len(moves) + 1, 256), np.int32)  # the last row, that of STOP, is left to it
    by_byte[STOP] = STOP
    for state, row in enumerate(moves):
        by_byte[state, list(row)] = list(row.values())
    states = np.broadcast_to(np.arange(len(table), dtype=np.int32)[:, None], table.shape).copy()
    for n in range(lengths[0] if len(lengths) else 0):
        count = np.searchsorted(-lengths, -n)  # tokens of more than n bytes
        states[:, :count] = by_byte[states[:, :count], letters[first[:count] + n]]
    table[:, order] = states


def _byte_automaton(patterns: list[bytes]) -> list[dict[int, int]]:
    """Returns the complete moves per state; bytes that are not listed lead to state 0."""
    moves: list[dict[int, int]] = [{}]
    final = {0: False}
    for pattern in patterns:
        state = 0
        for byte in pattern:
            if byte not in moves[state]:
                moves[state][byte] = len(moves)
                final[len(moves)] = False
                moves.append({})
            state = moves[state][byte]
        final[state] = True
    # Breadth first: a state inherits the moves of its longest proper suffix that is a state.
    suffix = {0: 0}
    queue = deque([0])
    while queue:
        state = queue.popleft()
        for byte, following in list(moves[state].items()):
            if following in suffix:
                continue
            suffix[following] = moves[suffix[state]].get(byte, 0) if state else 0
            final[following] |= final[suffix[following]]
            queue.append(following)
        if state:
            moves[state] = {**moves[suffix[state]], **moves[state]}
    return [{b: STOP if final[s] else s for b, s in row.items()} for row in moves]


def advance(table: jax.Array, state: jax.Array, tokens: jax.Array) -> jax.Array:
    """Follows the automaton over a block.

    Args:
      table: int32 [S, V].
      state: int32 [B], not `STOP`.
      tokens: int32 [B, M].

    Returns:
      int32 [B, M], the state after each token; `STOP` from the token on that ended the row.
    """

    def move(state, token):
        state = jnp.where(state == STOP, STOP, table[jnp.maximum(state, 0), token])
        return state, state

    _, states = jax.lax.scan(move, state, tokens.T)
    return states.T


def cut(text: str, stop_strings: Sequence[str]) -> str:
    """Returns the text before the first stop string that it contains."""
    found = [i for i in (text.find(s) for s in stop_strings) if i >= 0]
    return text[: min(found)] if found else text
