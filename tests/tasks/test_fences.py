import textwrap

import pytest

from speccascade.tasks.fences import Block, blocks, code

BODY = "    return 2 * x\n"
WHOLE = f'def twice(x):\n    """Twice x.\n\n    ```\n    twice(3)\n    ```\n    """\n{BODY}'
OTHER = "def thrice(x):\n    return 3 * x\n"

# Answers by what their code is.
ANSWERS = {
    BODY: [
        BODY,
        f"```python\n{BODY}```",
        f"```\n{BODY}```\nHope this helps!",
        f"Here it is:\n\n~~~~py\n{BODY}~~~~\n",
        f"```python\n{BODY}",  # cut off before the fence ended
        f"{BODY}```\n\nIt doubles x.",  # begun within a fence
        f"```python\r\n{BODY[:-1]}\r\n```\r\n",
        f"```python\n{BODY[:-1]}```",
    ],
    WHOLE: [
        WHOLE,
        f"```python\n{WHOLE}```",
        f"Here is the function:\n\n```python\n{WHOLE}```",
        f"Here is the function: ```python\n{WHOLE}```\n",
        f"# Solution\n\n```Python3\n{WHOLE}```\nIt doubles `x`, as ```x + x``` would.",
        f'```{{.python title="twice"}}\n{WHOLE}```',
        f"1. First:\n\n    ```python\n{''.join('    ' + line for line in WHOLE.splitlines(True))}"
        "    ```\n",
        f"````markdown\nSee:\n```python\n{WHOLE}```\n````",
        f"- ```python\n{textwrap.indent(WHOLE, '  ')}  ```\n- and so on",
        f"\t```python\n{textwrap.indent(WHOLE, chr(9))}\t```",
        # of several blocks the first that defines what is asked for
        f"```bash\npip install twice\n```\n\n```python\n{WHOLE}```\n```python\n{OTHER}```",
        f"```python\n{OTHER}```\n\n```python\n{WHOLE}```\n```\n>>> twice(3)\n6\n```",
        f"```\n>>> twice(3)\n```\n~~~text\n{WHOLE}~~~",
        f"```python\n{WHOLE}```\nOr:\n```python\ntwice = lambda x: x + x\n```",
    ],
    # what looks like a heading or like words may be the beginning of code
    f"# Twice\n{OTHER}twice = thrice\n": [f"# Twice\n{OTHER}twice = thrice\n```\nThat is it."],
    f'"""Twice."""\n{WHOLE}': [f'"""Twice."""\n{WHOLE}```\nThat is it.'],
    # where nothing defines it the first of Python, else the first
    OTHER: [
        f"```bash\npip install twice\n```\n```python\n{OTHER}```\n```python\nprint(1)\n```",
        f"```java\n{OTHER}```\n```rust\nfn\n```",
    ],
    "twice = lambda x: 2 * x\n": ["```python\nprint(1)\n```\n```py\ntwice = lambda x: 2 * x\n```"],
    "I cannot.": ["I cannot."],
    "Use ```2 * x``` for it.": ["Use ```2 * x``` for it."],
    "": [""],
}


@pytest.mark.parametrize(("want", "text"), [(w, t) for w, texts in ANSWERS.items() for t in texts])
def test_code_of_an_answer(want, text):
    assert code(text, ["twice"]).rstrip("\n") == want.rstrip("\n")


def test_blocks_have_languages_and_lines():
    text = "a\n```\nb\n\n c\n```\n~~~C++ x\n``` d\n~~~\n"
    assert blocks(text) == [Block("", "b\n\n c\n"), Block("c++", "``` d\n")]
