"""What is special to a pair with encoders; all else it shares with the fixture `pair`."""

import numpy as np
import pytest

from speccascade.decode import generate
from tests.decode import toys

PAIR = toys.PAIRS["encoder_decoder"]


@pytest.fixture(scope="module")
def decoded():
    """Returns the mixed batch and its texts, sampled and greedy, under every rule."""
    rows = toys.mixed_rows(stop_table=toys.NEVER, max_new_tokens=toys.ROOM)
    return rows, decode(rows)


def decode(rows):
    return toys.texts(generate(PAIR.decoder("token"), PAIR.params, toys.all_rules(), rows))


def test_padding_behind_a_prompt_does_not_matter(decoded):
    rows, expected = decoded
    own = np.arange(toys.SLOTS) < rows.prompt_length[:, None]
    assert decode(rows._replace(prompt=np.where(own, rows.prompt, toys.VOCAB - 1))) == expected


def test_every_token_of_a_prompt_matters(decoded):
    # The engine begins at the start token: what it writes knows the prompt from its encoder alone.
    rows, expected = decoded
    for place in (np.zeros_like(rows.prompt_length), rows.prompt_length - 1):
        prompt = rows.prompt.copy()
        at = np.arange(toys.BATCH), place
        prompt[at] = (prompt[at] + 1) % toys.VOCAB
        found = decode(rows._replace(prompt=prompt))
        assert np.mean([a != b for a, b in zip(found, expected, strict=True)]) > 0.5


def test_two_rooms_for_a_prompt_give_one_text(decoded):
    rows, expected = decoded
    wider = np.pad(rows.prompt, ((0, 0), (0, 5)), constant_values=1)
    assert decode(rows._replace(prompt=wider)) == expected
