"""The benchmarks, read from JSON lines of the columns that the hub has."""

import json
import sys

import ml_collections
import numpy as np
import pytest
import sacrebleu

from speccascade import tasks
from speccascade.errors import UserError
from speccascade.tasks import aggregate
from speccascade.tasks.benchmark_task import BenchmarkTask
from speccascade.text.prompt import Prompt
from tests.tasks.rows import ROWS, numbered

# A good answer to each row and its score.
GOOD = {
    "xsum": (" Dog bites man in Ulm.", 100.0),
    "cnn_dailymail": (" Rain fell . It was wet .", 100.0),
    "gsm8k": (" It is\n#### 4.0", 1.0),
    "squad": (" the Danube", 1.0),
    "web_questions": (" robert.", 1.0),
    "natural_questions": (" The Bob", 1.0),
    "trivia_qa": (" ROBERT!", 1.0),
}


@pytest.fixture
def write(tmp_path):
    def write(**splits):
        for split, rows in splits.items():
            lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
            (tmp_path / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
        return str(tmp_path)

    return write


def make(name, **fields):
    return tasks.make(ml_collections.ConfigDict({"name": name, **fields}))


@pytest.mark.parametrize("name", GOOD)
def test_a_task_reads_prompts_and_scores(name, write):
    rows = [numbered(ROWS[name], i) for i in range(64)]
    path = write(train=rows, validation=rows[:50], test=rows[50:])
    task = make(name, path=path)
    assert task.aggregate == "mean" and task.full_score == GOOD[name][1]
    every = {split: task.examples(split) for split in tasks.SPLITS}
    for split, found in every.items():
        assert found and task.examples(split, 2) == found[:2]
        assert make(name, path=path).examples(split) == found
        for example in found:
            assert example.answer.startswith(" ") and not example.prompt.endswith(" ")
            assert task.score(example.answer, example) == pytest.approx(GOOD[name][1])
            json.dumps(example.reference)
    ids = [example.id for found in every.values() for example in found]
    assert len(set(ids)) == len(ids) and max(ids) < 2**31
    example = every["test"][0]
    assert task.score(GOOD[name][0], example) == pytest.approx(GOOD[name][1])
    assert task.score(" Nothing of the sort", example) == 0.0
    # As many worked examples as the task says, each wholly there, and then the question.
    head = task.prompt("?!")
    assert head.count(every["train"][0].answer + task.separator) == task.shots
    assert head.endswith(task.template.format("?!"))
    bare = make(name, path=path, shots=0).prompt("?!")
    assert bare == task.instruction + task.template.format("?!") and head.endswith(bare[-9:])
    assert make(name, path=path, seed=1, shots=3).prompt("?!") != make(
        name, path=path, shots=3
    ).prompt("?!")


def test_parts_of_a_split_share_no_question(write):
    rows = [numbered(ROWS["squad"], i) for i in range(200)]
    task = make("squad", path=write(train=rows, validation=rows))
    halves = [{e.prompt for e in task.examples(split)} for split in ("validation", "test")]
    assert not halves[0] & halves[1] and len(halves[0] | halves[1]) == 200
    assert all(70 < len(half) < 130 for half in halves)


def test_squad_without_an_answer(write):
    none = {**ROWS["squad"], "answers": {"text": [], "answer_start": []}}
    path = write(train=[none], validation=[numbered(none, i) for i in range(16)])
    task = make("squad", path=path, shots=0)
    example = task.examples("test")[0]
    assert example.answer == " unanswerable"
    assert [task.score(t, example) for t in (" unanswerable", "", " Ulm")] == [1.0, 1.0, 0.0]
    assert "on the Danube" in example.prompt and "Question: Where is Ulm?" in example.prompt


def test_translation_is_scored_as_a_corpus(write):
    german = [
        "Das ist ein kleines Haus.",
        "Der Hund schläft auf dem Sofa.",
        "Es regnet seit drei Tagen.",
    ]
    rows = [{"translation": {"en": f"Sentence {i}.", "de": d}} for i, d in enumerate(german)]
    rows.append({"translation": {"en": "No German.", "de": " "}})
    path = write(train=rows, validation=rows, test=rows)
    task = make("wmt14", path=path, shots=2)
    examples = task.examples("validation")
    assert [e.reference for e in examples] == german
    assert examples[0].prompt.count("German:") == 3 and task.stop_strings == ("\n",)
    said = [" Das ist ein Haus.", " Der Hund schläft auf dem Boden.", " Es regnet seit drei Tagen."]
    scores = np.array([task.score(t, e) for t, e in zip(said, examples, strict=True)])
    wanted = sacrebleu.corpus_bleu([t.strip() for t in said], [german]).score
    assert aggregate.statistic(task.aggregate)(scores) == pytest.approx(wanted)
    perfect = np.array([task.score(e.reference, e) for e in examples])
    assert aggregate.statistic(task.aggregate)(perfect) == pytest.approx(task.full_score)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("wmt14", "translate English to German: "),
        ("xsum", "summarize: "),
        ("cnn_dailymail", "summarize: "),
    ],
)
def test_t5_gets_its_prefix_and_nothing_else(name, prefix, write):
    row = ROWS.get(name, {"translation": {"en": "A house.", "de": "Ein Haus."}})
    task = make(name, path=write(validation=[row]), format="t5")
    (example,) = task.examples("validation")
    question = {"wmt14": "A house."}.get(name) or row.get("document") or row["article"]
    assert (example.prompt, task.stop_strings) == (prefix + question, ())
    assert not example.answer.startswith(" ")


# What a prompt of the row may lose, and what stands before and behind it.
CUTTABLE = {
    "xsum": (ROWS["xsum"]["document"], "Article: ", "\nSummary:"),
    "cnn_dailymail": (ROWS["cnn_dailymail"]["article"], "Article: ", "\nSummary:"),
    "squad": (
        ROWS["squad"]["context"],
        "Text: ",
        f"\nQuestion: {ROWS['squad']['question']}\nAnswer:",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_long_texts_stay_whole_and_may_be_cut(name, write):
    """But for worked examples, instruction, question and wording."""
    task = make(name, path=write(train=[ROWS[name]] * 8, test=[ROWS[name]]), shots=1)
    question = task.problem(ROWS[name]).question
    prompt = task.prompt(question)
    assert prompt.endswith(task.template.format(question))
    if name not in CUTTABLE:
        assert not isinstance(prompt, Prompt)
        return
    part, before, after = CUTTABLE[name]
    assert prompt[prompt.start : prompt.stop] == part
    assert prompt[: prompt.start].endswith(before) and prompt[prompt.stop :] == after
    assert part in prompt[: prompt.start]  # that of the worked example


@pytest.mark.parametrize("name", ["xsum", "cnn_dailymail"])
def test_an_article_behind_a_prefix_may_be_cut(name):
    prompt = make(name, format="t5").prompt("A b. " * 2000)
    assert prompt == "summarize: " + "A b. " * 2000
    assert prompt[prompt.start : prompt.stop] == "A b. " * 2000


def test_words_are_limited_where_a_pair_was_trained_so():
    task = make("debian_summaries", path="nowhere", format="t5")
    assert task.prompt("one  two\nthree " * 200) == "summarize: " + "one  two\nthree " * 39 + (
        "one  two\nthree"
    )
    few = make("debian_summaries", path="nowhere", max_words=3)
    assert few.prompt("one  two\nthree four") == "Description: one  two\nthree\nSynopsis:"
    with pytest.raises(UserError, match="task.max_words=0 must be at least 1"):
        make("debian_summaries", max_words=0)
    for name in ("squad", "xsum", "cnn_dailymail"):
        with pytest.raises(UserError, match="task has no field 'max_words'"):
            make(name, max_words=10)


def test_every_row_of_the_registry_makes_a_task_of_its_name():
    for name in tasks._TASKS:
        if name not in ("gsm_symbolic", "questions", "mbpp", "human_eval"):
            task = make(name)
            assert task.name == name and aggregate.statistic(task.aggregate)
            assert not isinstance(task, BenchmarkTask) or "{}" in task.template


def test_errors(write, tmp_path, monkeypatch):
    path = write(train=[ROWS["gsm8k"], "{"], test=[{"question": "?"}, "[]"])
    with pytest.raises(UserError, match="train.jsonl line 2 is no JSON"):
        make("gsm8k", path=path, shots=0).examples("train")
    with pytest.raises(UserError, match="test.jsonl line 2 must be a JSON object"):
        make("gsm8k", path=path, shots=0).examples("test")
    path = write(train=[ROWS["gsm8k"]], test=[{"question": "?"}])
    with pytest.raises(UserError, match="row 0 of .*test. does not have the columns.*'answer'"):
        make("gsm8k", path=path, shots=0).examples("test")
    with pytest.raises(UserError, match="worked examples; lower task.shots .now 8. to that"):
        make("gsm8k", path=path).prompt("?")
    with pytest.raises(UserError, match="has no validation.jsonl"):
        make("squad", path=path, shots=0).examples("test")
    with pytest.raises(UserError, match="is no directory; leave it out to read openai/gsm8k"):
        make("gsm8k", path=str(tmp_path / "none"), shots=0).examples("test")
    with pytest.raises(UserError, match="has no split 'dev'; choose from: train, validation, test"):
        make("gsm8k").examples("dev")
    with pytest.raises(UserError, match=r"no field 'shot'; did you mean task.shots\?"):
        make("gsm8k", shot=8)
    with pytest.raises(UserError, match="task.shots=-1 must be"):
        make("gsm8k", shots=-1)
    with pytest.raises(UserError, match="gsm8k has no T5 prefix"):
        make("gsm8k", format="t5")
    with pytest.raises(UserError, match="must be few_shot or t5"):
        make("xsum", format="T5")
    with pytest.raises(UserError, match="task.shots must be 0"):
        make("xsum", format="t5", shots=1)
    monkeypatch.setitem(sys.modules, "datasets", None)  # as where it is not installed
    with pytest.raises(UserError, match="openai/gsm8k needs the package datasets: pip install"):
        make("gsm8k", shots=0).examples("test")


def test_parquet_and_saved_data_sets(write, tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs datasets (requirements-tasks.txt)")
    import pyarrow
    import pyarrow.parquet

    rows = [numbered(ROWS["gsm8k"], i) for i in range(40)]
    wanted = make("gsm8k", path=write(train=rows, test=rows))
    plain = tmp_path / "plain"
    plain.mkdir()
    for split in ("train", "test"):
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, plain / f"{split}.parquet")
    saved = tmp_path / "saved"
    datasets.load_dataset(str(plain), cache_dir=str(tmp_path / "cache")).save_to_disk(saved)
    for directory in (plain, saved):
        task = make("gsm8k", path=str(directory))
        for split in tasks.SPLITS:
            assert task.examples(split) == wanted.examples(split)
    with pytest.raises(UserError, match="has no split 'validation', only train, test"):
        make("squad", path=str(saved), shots=0).examples("test")
    with pytest.raises(UserError, match="datasets cannot read .*plain .ValueError: Unknown split"):
        make("squad", path=str(plain), shots=0).examples("test")


# A column, by its path, that should be a list; a text in its place is its one item.
LISTS = {
    "natural_questions": ("answer",),
    "web_questions": ("answers",),
    "squad": ("answers", "text"),
    "trivia_qa": ("answer", "aliases"),
}


def _with(row, path, value):
    head, *rest = path
    return {**row, head: _with(row[head], rest, value) if rest else value}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("given", ["on the Danube", ["on the Danube"], ["on the Danube", " "]])
def test_a_text_where_a_list_belongs_is_one_item(name, given, write):
    rows = [numbered(_with(ROWS[name], LISTS[name], given), i) for i in range(32)]
    task = make(name, path=write(train=rows, validation=rows, test=rows), shots=0)
    example = task.examples("test")[0]
    assert task.score(" on the Danube", example) == 1.0
    assert task.score(" on", example) < 1.0 and "o" not in example.reference


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    "given",
    ["['Bob', 'Robert']", '["Bob"]', "['Bob'\n 'Robert']", "{Bob,Robert}", "('Bob', 'Robert')"]
    + [5, None, True, 2.5, {"a": 1}, [5], [None], ["Bob", ["Robert"]], [True], ["Bob", "\ud83d"]],
)
def test_what_is_no_list_of_texts_is_named(name, given, write):
    rows = [numbered(_with(ROWS[name], LISTS[name], given), i) for i in range(32)]
    task = make(name, path=write(train=rows, validation=rows, test=rows), shots=0)
    with pytest.raises(UserError, match=".".join(LISTS[name]) + "|answer") as caught:
        task.examples("test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("gsm8k", ("answer",)),
        ("gsm8k", ("question",)),
        ("squad", ("context",)),
        ("squad", ("answers",)),
        ("trivia_qa", ("answer", "value")),
        ("trivia_qa", ("answer",)),
        ("wmt14", ("translation", "de")),
        ("wmt14", ("translation",)),
        ("xsum", ("summary",)),
        ("cnn_dailymail", ("highlights",)),
    ],
)
@pytest.mark.parametrize("given", [None, 4, ["4"], b"4".hex])
def test_a_column_that_is_no_text_is_named(name, path, given, write):
    if callable(given):  # absent
        row = {k: v for k, v in ROWS[name].items() if k != path[0]}
    else:
        row = _with(ROWS[name], path, given)
    rows = [row] * 20
    task = make(name, path=write(train=rows, validation=rows, test=rows), shots=0)
    with pytest.raises(UserError, match=f"row 0 of .*{path[0]}.*( must be |is missing)") as caught:
        task.examples("test")
    assert "\n" not in str(caught.value)
