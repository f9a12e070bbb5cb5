import pytest

from speccascade.tasks import fences, thoughts
from speccascade.tasks.final_number import final_number


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("18", "18"),
        ("<think>\nIs it 5?\n</think>\n\n18", "18"),
        ("\n <think></think>18", "18"),
        ("Is it 5?\n</think>\n    return 1", "    return 1"),  # the template began the thoughts
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think>\nIs it 5?", ""),  # no room was left for the answer
        ("write <think> before it", "write <think> before it"),
    ],
)
def test_what_is_behind_thoughts(text, want):
    assert thoughts.answer(text) == want


def test_neither_numbers_nor_code_are_looked_for_in_thoughts():
    assert final_number("<think>#### 5 or\n#### 6") is None
    assert final_number("<think>#### 5</think>so\n#### 18") == 18
    draft, right = "def twice(x):\n    return 3 * x\n", "def twice(x):\n    return 2 * x\n"
    said = f"<think>\n```python\n{draft}```\n</think>\n\nHere:\n```python\n{right}```"
    assert fences.code(said, ["twice"]) == right
