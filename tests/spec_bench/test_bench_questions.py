import json

import pytest

from speccascade.errors import UserError
from speccascade.spec_bench import questions

WRITING = {"question_id": 81, "category": "writing", "turns": ["Compose.", "Rewrite."]}
QA = {"question_id": 240, "category": "qa", "turns": ["Who?"], "reference": ["Ann"]}
SPEED = {
    "question_id": "a1",
    "category": "multilingual",
    "sub_category": "translation",
    "turns": ["Translate."],
    "source": "opus",
    "src_id": "opus_1",
    "difficulty": "easy",
    "multiturn": False,
}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_questions_of_either_form(tmp_path):
    found = questions.read(write(tmp_path / "q.jsonl", WRITING, QA))
    assert found == [
        (81, "writing", "mt_bench", ("Compose.", "Rewrite.")),
        (240, "qa", "qa", ("Who?",)),
    ]
    said = {**SPEED, "question_id": "a2", "messages": [{"role": "user", "content": "Hi"}]}
    del said["turns"]
    found = questions.read(write(tmp_path / "s.jsonl", SPEED, said))
    assert [tuple(q) for q in found] == [
        ("a1", "multilingual", "multilingual", ("Translate.",)),
        ("a2", "multilingual", "multilingual", ("Hi",)),
    ]


def test_speed_bench_as_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([SPEED]), tmp_path / "test.parquet")
    assert questions.read(tmp_path / "test.parquet")[0].turns == ("Translate.",)


def test_thirteen_categories_are_six_tasks():
    assert len(questions.TASKS) == 13 and len(set(questions.TASKS.values())) == 6


def test_the_first_of_each_category():
    rows = [questions.Question(i, c, c, ("x",)) for i, c in enumerate("abaabc")]
    assert [q.id for q in questions.limited(rows, 2)] == [0, 1, 2, 4, 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"category": "prose"}, "line 2: category 'prose' is unknown; choose one of: writing, "),
        ({"turns": "Who?"}, "line 2: turns must be a list of texts, not 'Who"),
        ({"turns": []}, "line 2: turns must be a list of at least one text"),
        ({"turns": ["Who?", " "]}, "none of them blank"),
        ({"turns": [1]}, r"line 2: turns\[0\] must be a text, not 1"),
        ({"question_id": None}, "line 2: question_id must be a number or a text, not None"),
        ({"question_id": 81}, "line 2: question_id 81 stands above already; keep one"),
        (
            {"src_id": "x", "turns": ["FULL BENCHMARK DATA SHOULD BE FETCHED FROM THE SOURCE"]},
            "line 2: its text was not fetched; prepare the file",
        ),
    ],
)
def test_bad_questions(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        questions.read(write(tmp_path / "q.jsonl", WRITING, {**QA, **changes}))


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="q.jsonl has no questions"):
        questions.read(write(tmp_path / "q.jsonl"))
    with pytest.raises(UserError, match="line 1: it has no category; give a file of Spec-Bench's"):
        questions.read(write(tmp_path / "q.jsonl", {"question_id": 1}))
    cut = write(tmp_path / "q.jsonl", WRITING, QA)
    cut.write_text(cut.read_text()[:-20])
    with pytest.raises(UserError, match="q.jsonl line 2 is no JSON"):
        questions.read(cut)
