"""Every form of saved answers, and what can be wrong with a file."""

import gzip
import json

import pytest

from speccascade.certify.reading import read
from speccascade.errors import UserError
from tests.certify import files


def only(path, filter_name=None):
    """Reads a file of one sample."""
    [sample] = read(path, filter_name).samples
    return sample


def test_answers_of_spec_bench(tmp_path):
    path = files.write(tmp_path / "model.jsonl", [files.spec_bench(81, ["Hello", "there"])])
    sample = only(path)
    assert (sample.id, sample.text) == ("81", "Hello\n\nthere")
    assert (sample.tokens, sample.seconds) == (8, 1.0)
    assert sample.emitted / sample.passes == 2.0
    assert read(path).name == "model"


def test_choices_of_spec_bench_are_samples(tmp_path):
    path = files.write(tmp_path / "m.jsonl", [files.spec_bench(81, ["a"], choices=3)])
    found = read(path).samples
    assert [sample.id for sample in found] == ["81"] * 3
    assert len({sample.draw for sample in found}) == 3


def test_an_answer_without_any_pass_has_no_acceptance(tmp_path):
    row = files.spec_bench(81, ["a"])
    row["choices"][0]["accept_lengths"] = []
    sample = only(files.write(tmp_path / "m.jsonl", [row]))
    assert sample.emitted is None and sample.passes is None


def test_samples_of_the_harness_are_those_of_one_filter(tmp_path):
    rows = [
        files.harness(i, text, right, name)
        for i in range(2)
        for name, text, right in (("strict-match", "4", 1.0), ("flexible", "14", 0.0))
    ]
    path = files.write(tmp_path / "samples_gsm8k.jsonl", rows)
    with pytest.raises(UserError, match="several filters; give --filter: strict-match, flexible"):
        read(path)
    with pytest.raises(UserError, match="no filter 'none'; it has: strict-match, flexible"):
        read(path, "none")
    found = read(path, "flexible").samples
    assert [(s.id, s.text, s.scores) for s in found] == [
        ("0", "14", {"exact_match": 0.0}),
        ("1", "14", {"exact_match": 0.0}),
    ]


def test_repeats_of_the_harness_are_samples(tmp_path):
    row = {**files.harness(7, "", 0.5), "filtered_resps": [["a", "b", "c"]]}
    found = read(files.write(tmp_path / "s.jsonl", [row])).samples
    assert [s.text for s in found] == ["a", "b", "c"]
    assert {s.scores["exact_match"] for s in found} == {0.5}


def test_likelihoods_of_the_harness_have_scores_and_no_text(tmp_path):
    row = {**files.harness(7, "", 1.0), "filtered_resps": [[-3.0, False], [-4.0, True]]}
    del row["metrics"], row["filter"]  # as older versions write
    sample = only(files.write(tmp_path / "s.jsonl", [row]))
    assert sample.text is None and sample.scores == {"exact_match": 1.0}


def test_plain_rows(tmp_path):
    rows = [
        {"id": "a", "text": "x", "tokens": [5, 6, 7], "seconds": 0.5, "acceptance": 2.5, "f1": 0.2},
        {"id": "b", "text": "y", "tokens": 4},
    ]
    first, second = read(files.write(tmp_path / "p.jsonl", rows)).samples
    assert (first.tokens, first.seconds, first.scores) == (3, 0.5, {"f1": 0.2})
    assert (first.emitted, first.passes) == (2.5, 1.0)
    assert (second.tokens, second.seconds, second.passes) == (4, None, None)


def test_answers_that_a_workdir_keeps(tmp_path):
    row = {"id": 3, "prompt": "d1", "tokens": [1, 2], "text": "x", "finished": True}
    row |= {"seconds": 0.2, "counts": {"emitted": 2.0, "expert_calls": 1.0}}
    path = tmp_path / "kept.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(row).encode() + b"\n"))
    sample = only(str(path))
    assert (sample.id, sample.tokens, sample.emitted, sample.passes) == ("3", 2, 2.0, 1.0)
    assert read(str(path)).name == "kept"


def test_files_with_commas_between_are_samples_for_the_same_prompts(tmp_path):
    paths = [files.plain(tmp_path / f"seed{i}.jsonl", [1.0, 0.0]) for i in range(3)]
    found = read(",".join(paths))
    assert found.name == "seed0, seed1, seed2"
    assert len({(s.id, s.draw) for s in found.samples}) == 6


GOOD = {"id": 1, "text": "x"}


@pytest.mark.parametrize(
    ("rows", "end", "message"),
    [
        ([], "", "has no answers"),
        ([{"prompt": "x"}], "\n", "line 1 has fields prompt, no form that is known here: answers"),
        ([GOOD, {"text": "x"}], "\n", "line 2 lacks id, which plain JSON lines have"),
        ([GOOD, {**GOOD, "text": 5}], "\n", "line 2: text must be a text, not 5"),
        ([{**GOOD, "id": 1.5}], "\n", "line 1: id=1.5 .float. must be a whole number or a text"),
        ([{**GOOD, "seconds": -1}], "\n", "line 1: seconds=-1 must be at least 0"),
        ([{**GOOD, "seconds": "fast"}], "\n", "line 1: seconds='fast' must be a finite number"),
        ([{**GOOD, "acceptance": True}], "\n", "acceptance=True must be a finite number"),
        ([GOOD, {**GOOD, "id": "1"}], "\n", "has 1 ids twice: 1; keep one answer of each"),
        ([files.spec_bench(1, ["x"])] * 2, "\n", "has 1 ids twice: 1;"),
        ([files.harness(1, "x", 1.0)] * 2, "\n", "has 1 ids twice: 1;"),
        ([{**files.spec_bench(1, ["x"]), "choices": []}], "\n", "choices=.* must be a list"),
        ([{"question_id": 1, "choices": [{"index": 0}]}], "\n", r"choices\[0\] has no turns"),
    ],
)
def test_files_that_cannot_be_read(rows, end, message, tmp_path):
    with pytest.raises(UserError, match=message) as raised:
        read(files.write(tmp_path / "bad.jsonl", rows, end))
    assert "\n" not in str(raised.value) and "bad.jsonl" in str(raised.value)


def test_samples_of_one_file_are_numbered(tmp_path):
    rows = [{**GOOD, "sample": i} for i in range(2)]
    assert len(read(files.write(tmp_path / "a.jsonl", rows)).samples) == 2


@pytest.mark.parametrize("kept", [1, 12, 30])
def test_a_file_cut_short_in_a_line(kept, tmp_path):
    whole = json.dumps({"id": 2, "text": "a longer text"})
    path = tmp_path / "cut.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + whole[:kept])
    with pytest.raises(UserError, match=r"cut.jsonl line 2 is no JSON .*was it cut short\?"):
        read(str(path))


def test_a_missing_file():
    with pytest.raises(UserError, match="nowhere.jsonl is missing"):
        read("nowhere.jsonl")
    with pytest.raises(UserError, match="names no file"):
        read(",")
