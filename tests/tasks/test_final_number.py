"""Final numbers, beside those that GSM8K's own extraction reads."""

import pathlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speccascade.tasks.final_number import final_number

# What grade_school_math/dataset.py looks for; it then drops the commas.
OFFICIAL = re.compile(r"#### (\-?[0-9\.\,]+)")


def official(text):
    return float(OFFICIAL.search(text)[1].rstrip(".").replace(",", ""))


def published():
    lines = pathlib.Path(__file__).with_name("gsm8k_numbers.txt").read_text().splitlines()
    return [n for line in lines if not line.startswith("#") for n in line.split()]


def test_all_published_answers_give_what_the_official_extraction_gives():
    assert len(published()) > 800
    for shown in published():
        text = f"6*3=<<6*3=18>>18 eggs\n#### {shown}"
        assert final_number(text) == official(text)


@given(
    st.decimals(-(10**12), 10**12, places=2) | st.integers(-(10**12), 10**12),
    st.booleans(),
    st.sampled_from(["", "\n", ".", " ", " apples", " dollars per day.", "%", " (6 each)", ", so"]),
)
def test_a_plain_number_is_read_as_the_official_extraction_reads_it(value, grouped, tail):
    text = f"so\n#### {value:{',' * grouped}}{tail}"
    assert final_number(text) == official(text)


@pytest.mark.parametrize(
    ("field", "want"),
    [
        ("36", 36), (" 36.0", 36), (" £1,200", 1200), (" -4", -4), (" **18**", 18), (" .5", 0.5),
        (" 1 800", 1800), (" 1/3", 1 / 3), (" 3.14", 3.14), (" 3 1/2", 3.5), (" 1e3", 1000),
        (" 9007199254740993", 9007199254740993),
        # words around it
        (" x = 5", 5), (" 18 apples", 18), (" about 18", 18), (" USD 18", 18), (" US$18", 18),
        (" The answer is 18.", 18), (" **Answer: 18**", 18), (" Answer = **18**", 18),
        (r" \boxed{18 \text{ apples}}", 18), (r" \text{Answer: } 18", 18), (" 18kg", 18),
        (" 18 m²", 18), (" 18 cm^3.", 18),
        (" <b>18</b>", 18), (" 18<|im_end|>", 18), (" x2", None),
        (" $18/hour", 18), (" 18 km/h", 18), (" 2 million", 2_000_000), (" 1.5 million dollars",
        1_500_000),
        (" 3 dozen", 36), (" 18 (6 each)", 18), (" 18, because 3 * 6 = 18", 18),
        (" 18. Each has 6", 18),
        (" 3 + 4 = 7", 7), (" 6 * 3 = **18**", 18), (" 18 – that is all", 18), (" **18** apples",
        18),
        # roots, multiples of a constant, periods: other numbers than those that are written
        (r" \sqrt{4}", None), (r" 2\sqrt{3}", None), (" √4", None), (" 2√3", None),
        (r" 2\pi", None), (" 2π", None), (r" 0.\overline{3}", None), (r" \sqrt{x} = 4", 4),
        (r" \frac{-1}{2}", -0.5), (r" -\frac{1}{2}", -0.5), (" 1 / 2", 0.5), (" 6 / 0", None),
        # which field
        (" 3\n#### 5", 5), (" 18\n#### ", 18), (" 18\n####", 18), (" 18 ####", 18), ("\n18", 18),
        (" Final answer:\n18", 18), (" 18\nThen 20 more.", 18),
        # not a number, or not one
        ("", None), (" -", None), (" none, 36", None), (" 12:30", None), (" 1,8", None),
        (" 18\n#### 12:30", None), ("\n\nQuestion: Tom has 3", None), (" 1 800 apples", None),
        (" 5 or 6", None), (" 5-6", None), (" 5 - 6", None), (" 5 to 6", None), (" 7 = 3 + 4",
        None),
        (" x - 5", None), (" x+5", None), (" 2 × y", None), (" 10 dollars and 50 cents", None),
        (" < 5", None), (" ≤ 5", None), (" 10k", None), (" 12pm", None), (" 5e", None), (" 0x10",
        None),
        (" A-5", None), (" twelve", None), (" " + "9" * 400, None), (" 1e400", None), (" 1e-400",
        None),
        # a float would be 1
        (" 1.00000000000000000001", None),
    ],
)  # fmt: skip
def test_fields(field, want):
    got = final_number(f"First.\n####{field}")
    assert got == want and type(got) is type(want)


@pytest.mark.parametrize("text", ["36", "", "### 36", "#36"])
def test_without_a_mark_there_is_none(text):
    assert final_number(text) is None
