"""Logits that are not finite end the row that meets them, and no other."""

import numpy as np
import pytest

from speccascade import rules as rules_lib
from speccascade.decode import Decoder, ModelDrafter, generate, make_rows, token_cascade
from tests.decode import toys

VOCAB, ROOM = 5, 8
POISON = 3  # the token after which a model's logits are not finite
TABLE = toys.Table(VOCAB)
DECODER = Decoder(TABLE, ModelDrafter(TABLE), 2, ROOM)
RULES = (rules_lib.make("spec"), rules_lib.make("chow", alpha=0.5))


def params(role=None, value=np.nan):
    """Returns tables in which POISON follows 2 alone, and `role` has no logits after it."""
    made = toys.tables(VOCAB, seed=1)
    for table in made.values():
        table[:, POISON] = -50.0
        table.reshape(VOCAB, VOCAB, VOCAB)[:, 2] = np.where(np.arange(VOCAB) == POISON, 50.0, 0.0)
        table[:, 2] = -50.0
    if role is not None:
        made[role].reshape(VOCAB, VOCAB, VOCAB)[:, POISON] = value
    return made


# Row 0 meets the poison in its prompt, row 1 after its first token; the others never.
ROWS = make_rows(
    [[0, POISON], [1, 2], [0, 1], [4], [1, 0]],
    stop_table=np.zeros((1, VOCAB), np.int32),
    max_new_tokens=[ROOM, ROOM, ROOM, ROOM, 0],
    prompt_slots=2,
    temperature=[1.0, 1.0, 1.0, 0.0, 1.0],
    rule_index=[0, 1, 1, 0, 0],
)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("role", ["drafter", "expert"])
def test_only_the_row_that_meets_them_ends(role, value):
    clean = generate(DECODER, params(), RULES, ROWS)
    assert not np.asarray(clean.invalid).any()
    out = generate(DECODER, params(role, value), RULES, ROWS)
    assert np.asarray(out.invalid).tolist() == [True, True, False, False, False]
    assert not np.asarray(out.finished).any()
    assert toys.texts(out)[2:] == toys.texts(clean)[2:]
    for b in (0, 1):  # what it had before stays
        assert toys.texts(out)[b] == toys.texts(clean)[b][: out.num_tokens[b]]
        assert out.num_tokens[b] < ROOM
    both = (x.by_name().values() for x in (out.stats, clean.stats))
    for found, expected in zip(*both, strict=True):
        np.testing.assert_array_equal(found[2:], expected[2:])
        assert np.all(found[:1] == 0)  # the block that failed is not counted


def test_a_token_cascade_needs_the_logits_that_it_asks_for():
    def decode(made, *alphas):
        alpha = np.array([*alphas, 0.5, 1.0, 0.5])
        return token_cascade(TABLE, TABLE, made, rules_lib.make("chow", alpha=alpha), ROWS, ROOM)

    clean = decode(params(), 1.0, -0.01)
    for role, invalid in (("drafter", [True, True]), ("expert", [False, True])):
        out = decode(params(role), 1.0, -0.01)  # row 0 never asks the expert, row 1 always
        assert np.asarray(out.invalid).tolist() == [*invalid, False, False, False]
        for b in range(5):
            assert toys.texts(out)[b] == toys.texts(clean)[b][: out.num_tokens[b]]
            assert out.num_tokens[b] == (ROWS.max_new_tokens[b] if not out.invalid[b] else b)
