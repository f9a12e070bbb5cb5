"""The stop automaton against a search of the decoded bytes."""

import itertools

import jax
import numpy as np
import pytest

from speccascade.decode.stopping import STOP, advance, cut, stop_table
from speccascade.errors import UserError

VOCAB, LENGTH, BLOCK = 24, 30, 6
STOP_SETS = [
    ["ab", "abc", "b"],  # one inside another
    ["aba", "abab", "baab"],  # that overlap themselves and each other
    ["abcabd", "bcabe", "cab"],  # that share prefixes of suffixes
    ["aaaa", "aaab"],
    ["é", "aéa", "\u00e9\u00e8"],  # of several bytes a character
    ["ccccccccc"],  # longer than any token
    [],
]
ADVANCE = jax.jit(advance)


def vocabulary(seed: int) -> list[bytes]:
    """Returns the bytes of random tokens: of none to four letters, and of pieces of letters."""
    rng = np.random.default_rng(seed)
    letters = [
        *(bytes([x]) for x in b"abcde"),
        *(x.encode() for x in "éè"),
        b"\xc3",
        b"\xa9",
        b"\xa8",
    ]
    odds = np.array([6, 6, 4, 2, 1, 1, 1, 1, 1, 1])
    sizes = rng.integers(0, 5, VOCAB)
    return [b"".join(rng.choice(letters, n, p=odds / odds.sum()).tolist()) for n in sizes]


def first_stop(tokens, pieces, strings, eos_ids) -> int | None:
    """Returns the index of the first token that ends the row, by searching all bytes so far."""
    text = b""
    for i, token in enumerate(tokens):
        text += pieces[token]
        if token in eos_ids or any(s.encode() in text for s in strings):
            return i
    return None


@pytest.mark.parametrize("strings", STOP_SETS, ids=repr)
def test_stops_where_the_text_contains_a_stop_string(strings):
    found = 0
    for seed in range(4):
        pieces, rng = vocabulary(seed), np.random.default_rng(seed)
        eos_ids = rng.choice(VOCAB, seed, replace=False).tolist()
        table = stop_table(VOCAB, (i for i in eos_ids), strings, lambda i, p=pieces: p[i])
        assert table.dtype == np.int32 and table.shape[1] == VOCAB
        padded = np.zeros((40, VOCAB), np.int32)  # one shape for all
        padded[: len(table)] = table
        tokens = rng.integers(0, VOCAB, (200, LENGTH)).astype(np.int32)
        # Block by block, as decoding goes, with rows that have stopped left as they are.
        state, stopped_at = np.zeros(200, np.int32), np.full(200, -1)
        for start in range(0, LENGTH, BLOCK):
            going = stopped_at < 0
            states = np.asarray(ADVANCE(padded, state, tokens[:, start : start + BLOCK]))
            stops = states == STOP
            assert np.all(stops[:, :-1] <= stops[:, 1:])
            hit = going & stops.any(1)
            stopped_at[hit] = start + stops[hit].argmax(1)
            state = np.where(going & ~hit, states[:, -1], 0)
        for row, at in zip(tokens, stopped_at, strict=True):
            expected = first_stop(row, pieces, strings, eos_ids)
            assert at == (-1 if expected is None else expected), row
            found += expected is not None
    assert found > 50


@pytest.mark.parametrize("strings", [[" a"], [" ", "b"], ["  a", " ab"], ["a"]], ids=repr)
def test_an_answer_that_begins_a_text_lacks_its_first_space(strings):
    pieces = [b"", b" ", b" a", b"  a", b"a", b"b", b" b", b"c"]
    size = len(pieces)
    table = stop_table(
        size, (), strings, lambda i: pieces[i], lambda i: pieces[i].removeprefix(b" ")
    )
    assert table[:-1].tolist() == stop_table(size, (), strings, lambda i: pieces[i]).tolist()
    differ = 0
    for tokens in itertools.product(range(size), repeat=4):
        data = b"".join(pieces[i] for i in tokens).removeprefix(b" ").decode()
        ends = []
        for first in (len(table) - 1, 0):
            states = [first]
            for token in tokens:
                states.append(table[states[-1], token] if states[-1] != STOP else STOP)
            ends.append(states[-1] == STOP)
        assert ends[0] == any(s in data for s in strings), tokens
        differ += ends[0] != ends[1]
    assert (differ > 0) == any(s.startswith(" ") for s in strings)
    assert len(stop_table(size, (), (), None, lambda i: pieces[i])) == 1


def test_cut_keeps_what_precedes_the_first_stop_string():
    assert cut("one two three", ["three", "two"]) == "one "
    assert cut("one two", ["four"]) == "one two"
    assert cut("one two", []) == "one two"
    assert cut("abab", ["bab", "ab"]) == ""


def test_cut_and_automaton_agree():
    strings, pieces = ["aba", "cb"], ["a", "b", "c", "ab", "cc", "ba"]
    table = stop_table(len(pieces), [], strings, lambda i: pieces[i].encode())
    rng = np.random.default_rng(0)
    for tokens in rng.integers(0, len(pieces), (200, 6)):
        state, text = 0, ""
        for token in tokens:
            assert cut(text, strings) == text
            state, text = table[state, token], text + pieces[token]
            if state == STOP:
                assert cut(text, strings) != text
                break


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8, [3, 8]), r"eos ids \[8\] are outside the vocabulary of 8 tokens"),
        ((8, [-1]), r"eos ids \[-1\] are outside"),
        ((8, [], ["ok", ""], lambda i: b"a"), "a stop string is empty"),
    ],
)
def test_bad_stops_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        stop_table(*arguments)
