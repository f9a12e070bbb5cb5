from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speccascade.tasks.mentions import contains, terms


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("The  Cat, an\nowl!", ["cat", "owl"]),
        ("U.S. won't 1,000", ["us", "wont", 1000]),
        ("“Æther” – it’s", ["æther", "its"]),
        ("theatre another", ["theatre", "another"]),
        ("A the an ...", []),
        ("-5 A-5 2-5 x-5", [-5, "a5", "2-5", "x5"]),
        ("1990s 10:30 v1.2.3 0x10", ["1990s", "10:30", "v1.2.3", "0x10"]),
        ("5.Then No.5 18-year", [5, "then", "no", 5, 18, "year"]),
        ("C++ C# C A+ a+b", ["c++", "c#", "c", "a+", "b"]),
        ("東京です、5人", ["東", "京", "で", "す", 5, "人"]),
        ("½ cup, 10²", [Fraction(1, 2), "cup", 100]),
    ],
)
def test_terms(text, want):
    assert terms(text) == want


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        ("It is Paris.", "paris", True),
        ("Comparisons", "paris", False),
        ("New York, the city", "york city", True),
        ("York is a new city", "New York", False),
        ("Paris,France", "Paris", True),
        ("from Paris—or London", "paris", True),
        ("", "paris", False),
        ("The Who", "who", True),
        # numbers are compared as numbers
        ("about 1,000 of them", "1000", True),
        ("about 1\u202f000 of them", "1000", True),
        ("10000", "1000", False),
        ("It is 3.14.", "3.14", True),
        ("It is 314.", "3.14", False),
        ("It costs 1.5 dollars", "15", False),
        ("It costs $1,000", "1000", True),
        ("It costs 18€", "18", True),
        ("It is -5", "5", False),
        ("It is −5", "-5", True),
        ("It is 5", "-5", False),
        ("5.0", "5", True),
        ("50", "5.0", False),
        ("half: 0.5", "1/2", True),
        ("1/2", "12", False),
        ("5%", "5", True),
        ("1 800", "1800", True),
        ("1 800 people", "1 800", True),
        ("1 800 people", "1800", False),
        ("between 5-6", "5", False),
        ("A-5", "-5", False),
        ("A-5", "5", False),
        ("2020-01-05", "5", False),
        ("In 1990s", "1990", False),
        ("In the 1990's", "1990s", True),
        ("10:30", "1030", False),
        ("at 10:30.", "10:30", True),
        ("1990–1995", "1990-1995", True),
        ("5 million", "5 million", True),
        ("9" * 400, "9" * 400, True),
        ("9" * 400, "9" * 399 + "8", False),
        # words of any script, one spelling of each
        ("C++", "C", False),
        ("in C.", "C", True),
        ("Ünal", "ünal", True),
        ("cafe\u0301", "café", True),
        ("café", "cafe", False),
        ("ＡＢＣ", "abc", True),
        ("Straße", "STRASSE", True),
        ("İstanbul", "istanbul", True),
        ("東京です", "東京", True),
        ("東です", "東京", False),
        ("コーヒーです", "コーヒー", True),
        ("アトム", "トム", False),
        ("서울은 수도다", "서울", True),
        ("กรุงเทพมหานคร", "กรุงเทพ", True),
        ("हिन्दी भाषा", "हिन्दी", True),
        ("हिन्दी", "हिन", False),
        ("Привет, мир!", "МИР", True),
        ("H₂O", "H2O", True),
        ("Go 🙂 now", "🙂", True),
    ],
)
def test_contains(text, answer, found):
    assert contains(text, answer) == found


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6), st.integers(0, 3))
def test_only_the_same_number_is_found(one, other, places):
    one, other = (f"{n / 10**places:.{places}f}" for n in (one, other))
    same = Fraction(one) == Fraction(other)
    for text in (one, f"It is {one}.", f"({one})", f"**{one}**", f"x = {one}, then", f"{one}%"):
        assert contains(text, other) == same


@given(st.text(), st.text())
def test_every_text_mentions_its_own_terms(before, answer):
    assert contains(f"{before}\n{answer}\n", answer) == bool(terms(answer))
