import pytest

from speccascade.tasks import answers


@pytest.mark.parametrize(
    ("text", "squad", "trivia_qa"),
    [
        ("The  Cat, an\nowl!", "cat owl", "cat owl"),
        ("U.S. won't 1,000", "us wont 1000", "u s won t 1 000"),
        ("Sherlock’s “hound”", "sherlock’s “hound”", "sherlock s “hound”"),
        ("snake_case", "snakecase", "snake case"),
        ("l–a", "l–", "l–"),  # articles end at any letter's end, deleted punctuation is ASCII's
        ("theatre another", "theatre another", "theatre another"),
        ("The", "", ""),
    ],
)
def test_normalisations(text, squad, trivia_qa):
    assert answers.squad(text) == squad
    assert answers.trivia_qa(text) == trivia_qa


@pytest.mark.parametrize(
    ("text", "accepted", "exact", "f1"),
    [
        ("the Denver Broncos.", ["Denver Broncos"], 1, 1.0),
        ("Broncos", ["Denver Broncos"], 0, 2 / 3),
        ("Denver Broncos of Colorado", ["Carolina", "Denver Broncos"], 0, 2 / 3),
        ("to to be", ["to be"], 0, 4 / 5),  # a word counts as often as it is in both
        ("Carolina", ["Denver Broncos"], 0, 0.0),
        # SQuAD 2.0: without words on either side they agree or they do not.
        ("", [""], 1, 1.0),
        ("Denver", [""], 0, 0.0),
        ("", ["Denver"], 0, 0.0),
        ("the", [""], 1, 1.0),
    ],
)
def test_exact_match_and_f1_of_squad(text, accepted, exact, f1):
    assert answers.exact_match(text, accepted) == exact
    assert answers.f1(text, accepted) == pytest.approx(f1)


def test_exact_match_of_trivia_qa():
    assert answers.exact_match("Catch-22", ["catch 22"], answers.trivia_qa) == 1.0
    assert answers.exact_match("Catch-22", ["catch 22"]) == 0.0
