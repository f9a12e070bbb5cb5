"""Prompts that are made to fit."""

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speccascade.text.prompt import Fitted, Prompt, fit

LETTERS = st.text("ab \n", max_size=30)


def by_bytes(texts):
    """A tokenizer of bytes that puts one token before a text and two behind it."""
    return [[1, *(3 + byte for byte in text.encode()), 2, 2] for text in texts]


def by_words(texts):
    """One whose tokens are words and white space, however long."""
    return [[len(word) for word in text.replace(" ", " \0 ").split("\0")] for text in texts]


@settings(deadline=None)
@given(st.lists(st.tuples(LETTERS, LETTERS, LETTERS, st.none() | st.integers(0, 60))))
def test_as_little_is_cut_as_will_do(drawn):
    prompts = [Prompt(a + b + c, len(a), len(a + b)) for a, b, c, _ in drawn]
    most = [limit for *_, limit in drawn]
    whole = by_bytes(prompts)
    for (before, part, after, limit), ids, (found, cut) in zip(
        drawn, whole, fit(by_bytes, prompts, most), strict=True
    ):
        assert cut == len(ids) - len(found)
        # All that it could have become, longest first; white space at the end counts for nothing.
        ways = [before + part[:n].rstrip() + after for n in range(len(part), -1, -1)]
        short = [w for w in by_bytes(ways) if limit is None or len(w) <= limit]
        if limit is None or len(ids) <= limit or not short:
            assert found == ids
        else:
            assert found in short and len(found) == max(map(len, short))


@given(LETTERS, st.integers(0, 60))
def test_what_is_not_marked_stays(text, limit):
    assert fit(by_bytes, [text], [limit]) == [Fitted(*by_bytes([text]), 0)]


def test_tokens_longer_than_a_character():
    prompt = Prompt("Read: " + "word " * 1000 + "End", 6, 5006)
    (found,) = fit(by_words, [prompt], [100])
    assert len(found.ids) <= 100 and found.cut == len(by_words([prompt])[0]) - len(found.ids) > 0


def test_copies_keep_the_part():
    prompt = Prompt("abcdef", 1, 4)
    for again in (copy.copy(prompt), copy.deepcopy(prompt), pickle.loads(pickle.dumps(prompt))):
        assert (again, again.start, again.stop) == ("abcdef", 1, 4)
    assert type(prompt + "g") is str and prompt.cut(2) == "abcef"


@pytest.mark.parametrize("part", [(-1, 2), (2, 1), (0, 4)])
def test_a_part_is_of_its_text(part):
    with pytest.raises(ValueError, match="not a part"):
        Prompt("abc", *part)
