from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speccascade.tasks.characters import canonical
from speccascade.tasks.numbers import number, pieces

HALF, THREE_AND_A_HALF = Fraction(1, 2), Fraction(7, 2)

NUMBERS = {
    # signs
    "5": 5, "+5": 5, "-5": -5, "−5": -5, "–5": -5, "—5": -5, "‐5": -5, "﹣5": -5, "－5": -5,
    "- 5": -5, "(-5)": -5, "(5)": 5, "-0": 0,
    # decimals
    "5.": 5, "5.0": 5, ".5": HALF, "-.5": -HALF, "3.14": Fraction(157, 50), "٣٫١٤": Fraction(157,
    50),
    # thousands
    "1,800": 1800, "1,234,567.89": Fraction(123456789, 100), "1'000": 1000, "1’000": 1000,
    "1_000": 1000, "1 800": 1800, "-1 800": -1800, "1 800.5": Fraction(3601, 2),
    "1\u202f800": 1800, "1\u00a0800": 1800, "1\u2009234\u2009567": 1234567, "١٬٨٠٠": 1800,
    # fractions and powers
    "1/2": HALF, "1⁄2": HALF, "½": HALF, "−½": -HALF, "3 1/2": THREE_AND_A_HALF,
    "3½": THREE_AND_A_HALF, "3 ½": THREE_AND_A_HALF, "3¹⁄₂": THREE_AND_A_HALF, "1/3": Fraction(1,
    3),
    "1e3": 1000, "1E3": 1000, "1e+3": 1000, "1.5e-3": Fraction(3, 2000), "10^3": 1000, "10²": 100,
    "10⁻²": Fraction(1, 100), "2x10^3": 2000, "2 × 10³": 2000, "2·10^3": 2000, "2 * 10^3": 2000,
    # currency, percent, other scripts' digits
    "$18": 18, "€18": 18, "18€": 18, "18 €": 18, "-$3": -3, "$-3": -3, "$.50": HALF, "5%": 5,
    "5 %": 5, "٢٥": 25, "１８": 18, "१८": 18, "#5": 5, "~18": 18, "≈18": 18,
    # marks around it
    "**18**": 18, "**$1,800**.": 1800, "`18`": 18, "__18__": 18, "18,": 18, "18;": 18, "“18”": 18,
    # LaTeX
    "$18$": 18, "$$18$$": 18, r"\(18\)": 18, r"\[18\]": 18, r"\boxed{18}": 18, r"$\boxed{18}$.": 18,
    r"\boxed{-3}": -3, r"\frac{1}{2}": HALF, r"-\dfrac{1}{2}": -HALF, r"\frac12": HALF,
    r"3\frac{1}{2}": THREE_AND_A_HALF, r"\boxed{\frac{1}{2}}": HALF, "1{,}800": 1800,
    r"\boxed{1{,}800}": 1800, r"1\,800": 1800, r"1,\!800": 1800, r"\$1{,}800": 1800, r"5\%": 5,
    r"2 \times 10^{3}": 2000, r"2 \cdot 10^{-1}": Fraction(1, 5), r"\text{18}": 18,
    r"\boxed{\text{18}}": 18, r"90^\circ": 90, r"\left(18\right)": 18,
}  # fmt: skip

NONE = (
    "", "-", "+", ".", "$", "%", "--5", "+-5", "±5", "<5", "≤5", ">5", "5-6", "5–6", "2-5", "$5-$6",
    "12:30", "3:2", "1,8", "1,80", "0,500", "1,2345", "1,000,00", "12,34,567", "1.800,5",
    "1.234.567", "1'000,000", "1__000", "1_0", "1 80", "1 8000", "1800 000", "3.14.15", "10.0.0.1",
    "1/0", "3 3/2", "1/2/2020", "1.5/2", "10**3", "10*3", "5+3", "5e", "e5", "5e3e3", "0x10",
    "1990s", "A-5", "x5", "5x", "5+", "nan", "inf", "infinity", "IV", "Ⅳ", "five", "1 2",
    "5 apples",
    "2020-01-05", "9" * 301, "1e999999999", "10^99999", "9^9^9", "0^-1", "1e-999999999",
)  # fmt: skip


@pytest.mark.parametrize("text", NUMBERS)
def test_what_is_a_number(text):
    assert number(text) == NUMBERS[text]


@pytest.mark.parametrize("text", NONE)
def test_what_cannot_be_read_is_none(text):
    assert number(text) is None


@given(st.fractions(max_denominator=10**6), st.sampled_from("-−–﹣－"))
def test_every_spelling_of_a_fraction_is_that_fraction(value, minus):
    sign = minus if value < 0 else ""
    over, under = abs(value.numerator), value.denominator
    assert number(f"{sign}{over}/{under}") == value
    assert number(rf"{sign}\frac{{{over}}}{{{under}}}") == value
    if over > under > 1:
        assert number(f"{sign}{over // under} {over % under}/{under}") == value


@given(
    st.integers(-(10**30), 10**30),
    st.integers(0, 6),
    st.sampled_from([",", "'", "_", "\u00a0", "\u2009", "\u202f", ""]),
)
def test_every_spelling_of_a_decimal_is_that_decimal(digits, places, separator):
    value = Fraction(digits, 10**places)
    whole, part = divmod(abs(digits), 10**places)
    tail = f".{part:0{places}}" if places else ""
    text = ("-" if digits < 0 else "") + f"{whole:,}".replace(",", separator) + tail
    for shown in (text, f"**{text}**", f"\\boxed{{{text}}}", f"${text}$", f"{text}%", f"{text}."):
        assert number(shown) == value
    assert number(f"{text}e5") == value * 10**5
    assert number(text.translate({48 + i: 0x0660 + i for i in range(10)})) == value
    # In running text too, and nothing else is found there.
    found = [p for p in pieces(canonical(f"It is {text} now, or ({text})")) if p.is_number]
    assert [p.value for p in found] == [value, value]


@given(st.text(alphabet="0123456789.,:/'_^*×-–+$%eExX () \\{}frac½²", max_size=24) | st.text())
def test_nothing_crashes_and_pieces_tell_where_they_are(text):
    shown = canonical(text)
    assert number(text) is None or isinstance(number(text), Fraction)
    end = 0
    for piece in pieces(shown):
        assert end <= piece.start and shown.startswith(piece.text, piece.start) and piece.text
        assert piece.value is None or piece.is_number
        end = piece.start + len(piece.text)


@pytest.mark.parametrize(
    "text",
    ["Plain words, as they are; 5 of them.", "a_b (c) [d] 'e' \"f\" <g> #h @i", "tabs\tand\nlines"],
)
def test_plain_text_is_canonical(text):
    assert canonical(text) == text
