"""Bad input to the engine: one clear line each, before anything is compiled."""

import numpy as np
import pytest

from speccascade import rules
from speccascade.decode import (
    Decoder,
    ModelDrafter,
    NoDrafter,
    autoregressive,
    generate,
    make_rows,
    sequence_cascade,
    token_cascade,
    trace,
)
from speccascade.errors import UserError
from speccascade.sampling import Truncation
from tests.decode import toys

TABLE = toys.Table(4)
STOPS = np.zeros((1, 4), np.int32)
PARAMS = toys.tables(4, seed=0)


def rows(prompts=((1, 2), (3,)), **changes):
    options = {"stop_table": STOPS, "max_new_tokens": 5, "prompt_slots": 3, **changes}
    return make_rows(prompts, **options)


def decoder(drafter=None, draft_length=2, **options):
    return Decoder(TABLE, drafter or ModelDrafter(TABLE), draft_length, 5, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": [[1], []]}, "prompt 1 is empty; give it at least one token"),
        ({"prompts": [[1, 2, 3, 0]]}, "prompt 0 has 4 tokens and the room is 3; shorten it or"),
        ({"prompts": [[1], [4]]}, "prompt 1 has ids outside the vocabulary of 4 tokens"),
        ({"prompts": [[-1]]}, "prompt 0 has ids outside the vocabulary of 4 tokens"),
        ({"temperature": -0.5}, "temperature=-0.5 must be finite and at least 0"),
        ({"temperature": [1.0, np.nan]}, "must be finite and at least 0"),
        ({"expert_truncation": Truncation(top_p=0.0)}, r"top_p=0.0 must be in \(0, 1\]"),
        ({"drafter_truncation": Truncation(top_p=np.nan)}, r"top_p=nan must be in \(0, 1\]"),
        ({"expert_truncation": Truncation(top_k=[2, 0])}, r"top_k=\[2, 0\] must be at least 1"),
        ({"drafter_truncation": Truncation(min_p=1.5)}, r"min_p=1.5 must be in \[0, 1\]"),
    ],
)
def test_bad_rows(changes, message):
    with pytest.raises(UserError, match=message):
        rows(**changes)


def test_a_truncation_without_fields_is_none():
    assert rows(expert_truncation=Truncation()).expert_truncation is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: decoder(verifier="tree"), "verifier 'tree' is unknown; choose one of: token, blo"),
        (lambda: Decoder(TABLE, NoDrafter(), 0, 0), "max_new_tokens=0 must be at least 1"),
    ],
)
def test_bad_decoders(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("start", [generate, lambda *a: next(trace(*a))], ids=["generate", "trace"])
@pytest.mark.parametrize(
    ("made", "names", "changes", "message"),
    [
        (decoder(draft_length=0), ["spec"], {}, "draft_length=0 must be at least 1"),
        (decoder(draft_length=-1), ["spec"], {}, "draft_length=-1 must be at least 1"),
        (
            decoder(ModelDrafter(toys.Table(5))),
            ["spec"],
            {},
            "the drafter has 5 token ids and the expert 4; a pair must share one vocabulary",
        ),
        (decoder(), [], {}, "no rule was given"),
        (decoder(NoDrafter(), 0), ["drafter"], {}, "without a drafter the draft length is 0 and"),
        (decoder(NoDrafter(), 2), ["spec"], {}, "without a drafter the draft length is 0 and"),
        (
            decoder(),
            ["spec"],
            {"max_new_tokens": [5, 6]},
            "a row asks for 6 new tokens and the decoder has room for 5",
        ),
        (decoder(), ["spec"], {"rule_index": [0, 1]}, "a row follows rule 1 and the run has 1"),
        (decoder(), ["spec"], {"rule_index": [-1, 0]}, "a row follows rule -1 and the run has 1"),
    ],
)
def test_what_does_not_fit_together(start, made, names, changes, message):
    chosen = tuple(rules.make(name) for name in names)
    with pytest.raises(UserError, match=message):
        start(made, PARAMS, chosen, rows(**changes))


def test_bad_cascades():
    with pytest.raises(UserError, match="rule diff needs the expert to decide; a token cascade"):
        token_cascade(TABLE, TABLE, PARAMS, rules.make("diff", alpha=0.1), rows(), 5)
    for threshold in (np.nan, [0.0, -np.inf]):
        with pytest.raises(UserError, match="must be finite; it is a mean log-probability"):
            sequence_cascade(TABLE, TABLE, PARAMS, threshold, rows(), 5)
    many, other = rows(max_new_tokens=6), toys.Table(5)
    chow = rules.make("chow", alpha=0.5)
    for decode in (
        lambda drafter, asked: token_cascade(drafter, TABLE, PARAMS, chow, asked, 5),
        lambda drafter, asked: sequence_cascade(drafter, TABLE, PARAMS, -1.0, asked, 5),
    ):
        with pytest.raises(UserError, match="a row asks for 6 new tokens and the decoder has room"):
            decode(TABLE, many)
        with pytest.raises(UserError, match="the drafter has 5 token ids and the expert 4"):
            decode(other, rows())


def test_autoregressive_ignores_the_rule_of_a_row():
    out = autoregressive(TABLE, PARAMS["expert"], rows(rule_index=[3, 1]), 5)
    assert np.asarray(out.num_tokens).tolist() == [5, 5]
