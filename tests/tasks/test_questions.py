import json
import pathlib

import ml_collections
import pytest

from speccascade import tasks
from speccascade.errors import UserError

SHIPPED = pathlib.Path(__file__).parents[2] / "configs" / "questions.jsonl"


def make(path, **fields):
    return tasks.make(ml_collections.ConfigDict({"name": "questions", "path": str(path), **fields}))


@pytest.fixture
def written(tmp_path):
    """Writes objects, or lines as they are, to a file of questions."""

    def write(*lines):
        path = tmp_path / "questions.jsonl"
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("\n".join(texts) + "\n")
        return path

    return write


def test_examples_by_field_and_by_hash(written):
    by_hash = [{"prompt": f"Question {i}?", "answers": ["yes", "no"]} for i in range(40)]
    chosen = {"prompt": "Chosen?", "answers": ["x"], "split": "test"}
    path = written(*by_hash, "", chosen)
    task = make(path, stop_strings=("\n",))
    assert task.stop_strings == ("\n",) and make(path).stop_strings == ()
    validation, test = task.examples("validation"), task.examples("test")
    assert {e.prompt for e in validation + test} == {q["prompt"] for q in [*by_hash, chosen]}
    assert sorted(e.id for e in validation + test) == [*range(1, 41), 42]
    assert len(validation) + len(test) == 41 and len(validation) > 8 and len(test) > 8
    assert test[-1] == tasks.Example(42, "Chosen?", "x", ("x",))
    assert task.examples("test", 2) == test[:2]
    # Neither its place in the file nor its neighbours change where a question belongs.
    again = make(written(*by_hash[::-1]))
    assert {e.prompt for e in again.examples("validation")} == {e.prompt for e in validation}
    example = validation[0]
    assert task.prompt(example.prompt) == example.prompt
    assert task.score("Well, NO!", example) == 1.0
    assert task.score("Nothing.", example) == 0.0


GOOD = {"prompt": "Good?", "answers": ["yes"]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is no JSON"),
        ("[]", "line 2 must be a JSON object"),
        ({**GOOD, "prompt": "B?", "answer": "no", "x": 1}, "line 2: unknown fields answer, x"),
        ({"answers": ["yes"]}, "line 2: 'prompt' is missing"),
        ({"prompt": " ", "answers": ["yes"]}, "line 2: prompt must be a text"),
        ({"prompt": "B?"}, "line 2: 'answers' is missing"),
        ({"prompt": "B?", "answers": []}, "line 2: answers must be a list"),
        ({"prompt": "B?", "answers": "['yes']"}, "line 2: answers is a text that spells a list"),
        ({"prompt": "B?", "answers": ["yes", "the"]}, "line 2: answers must be a list"),
        ({"prompt": "B?", "answers": [1]}, r"line 2: answers\[0\] must be a text, not 1"),
        ({"prompt": "B?", "answers": ["yes"], "split": "train"}, "line 2: split 'train' is unkn"),
        (GOOD, "line 2: the prompt is that of line 1"),
    ],
)
def test_errors_name_the_line(written, line, message):
    with pytest.raises(UserError, match=message) as error:
        make(written(GOOD, line))
    assert "\n" not in str(error.value)


def test_errors_of_the_config(written, tmp_path):
    path = written(GOOD)
    with pytest.raises(UserError, match="no split 'train'; choose validation or test"):
        make(path).examples("train")
    with pytest.raises(UserError, match="nowhere is missing"):
        make(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no field 'stop_string'; did you mean task.stop_str"):
        make(path, stop_string="x")
    with pytest.raises(UserError, match="task.path is missing"):
        make("")


def test_the_shipped_questions():
    task = make(SHIPPED)
    halves = [task.examples(split) for split in ("validation", "test")]
    assert [len(half) for half in halves] == [64, 64]
    for example in halves[0] + halves[1]:
        assert all(task.score(f"I think: {answer}.", example) for answer in example.reference)
        assert task.score(example.prompt, example) == 0.0  # none gives its own answer away
