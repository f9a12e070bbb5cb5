"""Golden tokens and scores: what the versions in `evaluate.origin` stand for.

Where one of these fails and the change is meant, rows that were measured before are of another
edition: raise the version that the test names, and put what the failure prints in the place of the
old value.
"""

import numpy as np
import pytest

import speccascade
from speccascade import pairs
from speccascade.evaluate import origin
from speccascade.evaluate.reference_rows import Figures, rule_row, sums
from speccascade.evaluate.timing import _row
from speccascade.inference.engine import answer_digest
from speccascade.tasks import answers, final_number, mentions, overlap
from tests import tiny_pair

QUESTION = (
    "William is 21 years old. In 10 years his sister Jennifer will be 2 times as old as William "
    "is now. How old is Jennifer right now?\n"
)
HOW = {
    "expert": {"method": "autoregressive_expert"},
    "spec": {"rule": "spec", "draft_length": 4},
    "block": {"rule": "token_v3", "alpha": 0.5, "draft_length": 4, "verifier": "block"},
    "chow": {"rule": "chow", "alpha": 0.1, "draft_length": 3, "expert_top_p": 0.9},
    "lookup": {"rule": "token_v3", "alpha": 0.5, "draft_length": 4, "drafter": "lookup"},
    "token_cascade": {"method": "token_cascade", "rule": "chow", "alpha": 0.1},
    "sequence_cascade": {"method": "sequence_cascade", "threshold": -0.2},
}
TOKENS = {
    "expert": ["fd5fa358", "bcea53f1"],
    "spec": ["fd5fa358", "9224e89f"],
    "block": ["fd5fa358", "fd5fa358"],
    "chow": ["fd5fa358", "1ff57cf5"],
    "lookup": ["fd5fa358", "6d3e8ee6"],
    "token_cascade": ["fd5fa358", "9aa12b49"],
    "sequence_cascade": ["c6c7c474", "7bb216d4"],
}


@pytest.fixture(scope="module")
def pair():
    # bfloat16 rounds otherwise on another processor, and other tokens are drawn.
    return tiny_pair.in_float32(pairs.load("shipped:gsm_symbolic"))


@pytest.mark.parametrize("name", HOW)
def test_decoding(pair, name):
    found = {}
    for temperature in (0.0, 2.0):
        how = {**HOW[name], "temperature": temperature, "seed": 5}
        (answer,) = speccascade.generate_text(pair, [QUESTION], max_new_tokens=40, **how)
        found[temperature] = answer_digest(answer.tokens)
    assert (origin.DECODING, list(found.values())) == (1, TOKENS[name])


def test_scoring():
    texts = ("So it is 1,800 in all.\n#### 1,800", "#### 3 1/2", "#### about 12:30", "none")
    bleu = overlap.bleu_statistics("Das ist ein kleines Haus.", "Das ist ein grosses Haus.")
    found = [
        *(final_number.final_number(text) for text in texts),
        mentions.contains("It is -5 in Paris, France", "-5"),
        mentions.contains("It is -5", "5"),
        answers.f1("the cat sat", ("a cat sat down", "dog")),
        list(bleu),
        round(overlap.rouge_2("a small tool to copy files", "a tool to copy small files"), 4),
    ]
    wanted = [1800, 3.5, None, None, True, False, 0.8, [6, 6, 5, 3, 1, 0, 6, 5, 4, 3], 40.0]
    assert (origin.SCORING, found) == (1, wanted)


def test_forcing_and_times():
    rng = np.random.default_rng(0)
    figures = Figures(*rng.random((5, 3, 4), np.float32))
    own = np.arange(4) < np.array([[4], [2], [3]])
    forced = rule_row(sums(figures, own), own)
    timed = _row(*(np.array(column) for column in ([1.0, 2.0], [3, 4], [5.0, 6.0], [7, 8])))
    found = {k: np.round(v, 4).tolist() for row in (forced, timed) for k, v in row.items()}
    assert (origin.FORCING, origin.TIMES, found) == (
        1,
        1,
        {
            "positions": 9,
            "quality": 0.4728,
            "quality_ci": [0.1744, 0.5671],
            "deferral_rate": 0.3244,
            "rejection_rate": 0.6104,
            "lengths": [4, 2, 3],
            "reference_sums": [2.2685, 0.3488, 1.638],
            "deferral_sums": [1.2839, 0.4316, 1.2045],
            "tv_sums": [2.0204, 1.4581, 2.0152],
            "ms_per_token": 0.4286,
            "expert_ms_per_token": 0.7333,
            "speedup": 1.7111,
            "speedup_ci": [1.5, 2.1429],
            "ms": [1.0, 2.0],
            "generated": [3, 4],
            "expert_ms": [5.0, 6.0],
            "expert_generated": [7, 8],
        },
    )
