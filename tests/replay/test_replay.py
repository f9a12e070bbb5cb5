"""From a sweep that saves distributions, or another engine's file, to the table."""

import functools
import gzip
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from speccascade import decode, pairs
from speccascade.errors import UserError
from speccascade.evaluate import evaluation, prepared, recording
from speccascade.evaluate.jobs import QUALITY, Job
from speccascade.inference.engine import Engine
from speccascade.inference.reading import from_fields, setting
from speccascade.inputs import text_files
from speccascade.replay import blocks, positions
from speccascade.replay.replaying import from_flags, replay
from speccascade.rules import total_variation
from speccascade.workdir import answers, distributions, results
from tests import called, tiny_pair
from tests.replay import saved

COLD, HOT = "token_v3 alpha=0.8 T=0", "token_v3 alpha=0.8 T=1"
SAVED = recording.from_flags("whole", (COLD, HOT))


@functools.cache
def config_of(directory):
    config = tiny_pair.get_config(directory)
    config.evaluate.settings = [
        entry
        for entry in config.evaluate.settings
        if entry.get("rule") == "token_v3"  # one program
    ]
    config.evaluate.splits = {"test": 4}
    config.evaluate.timing.num_examples = 0
    return config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("pair"))
    pairs.export(tiny_pair.make(), directory, {})
    return config_of(directory)


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    """A workdir with whole distributions at the answers of two settings."""
    directory = str(tmp_path_factory.mktemp("work"))
    assert evaluation.evaluate(config, directory, saved=SAVED).recorded == 2 * 4
    return directory


@pytest.fixture
def copy(workdir, tmp_path):
    return shutil.copytree(workdir, tmp_path / "copy")


def options(**given):
    """Returns the options of flags, those of the script where nothing is given."""
    defaults = {"rules": (), "alphas": ("0.3",), "draft_lengths": ("2",)}
    return from_flags(**{**defaults, **given})


def quality_row(workdir, words):
    rows = [row for row in results.read(workdir) if row["kind"] == QUALITY]
    own = [r for r in rows if set(words.split()) <= set(str(from_fields(r)).split())]
    return max(own, key=lambda row: row["num_examples"])


def recorded(workdir, words):
    row = quality_row(workdir, words)
    path = answers.path_of(workdir, row["answers"], distributions.FOLDER)
    return row, path, list(distributions.read(path))


def cells(text):
    """Returns the cells of a table's rows by their settings."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {line[0].strip("`"): line[1:] for line in lines}


# ---- against decoding ----


def test_a_rules_own_answers_give_what_decoding_counted(workdir):
    for words in (COLD, HOT):
        row, _, found = recorded(workdir, words)
        chosen = from_fields(row)
        counts = {str(a["id"]): a for a in answers.read(workdir, row["answers"])}
        for answer, [own] in zip(found, positions.replay(found, [chosen]), strict=True):
            decoded = counts[answer.id]
            assert decoded["tokens"] == answer.tokens.tolist()
            decoded = decoded["counts"]
            # Every token's position is counted once, whoever wrote it.
            assert own.deferral.low.sum() == pytest.approx(decoded["deferral_sum"], abs=1e-4)
            if words == COLD:
                expected = blocks.expected(own.rejection.low, own.ends, chosen.draft_length)
                assert expected.calls == decoded["expert_calls"]
                assert expected.tested == decoded["tested"]
                assert expected.rejected == decoded["rejected"] == decoded["tv_sum"]


@pytest.mark.slow
def test_every_tested_position_has_the_decoders_own_rejection(config, workdir):
    row, _, found = recorded(workdir, HOT)
    chosen = from_fields(row)
    sweep = prepared.prepare(config)
    requests = sweep.prompts["test"].requests[:4]
    rows = [own for [own] in positions.replay(found, [chosen])]
    place, compared = np.zeros(4, int), 0
    run = sweep.engine.prepare([chosen] * 4, requests, [chosen], decode.trace)
    for _, record in run():
        size = record.draft.tokens.shape[1]
        distance = total_variation(record.pi[:, :size], record.draft.q.q[:, :size])[..., 0]
        tested = np.minimum(np.asarray(record.verdict.num_accepted) + 1, record.emitted)
        tested = np.minimum(tested, record.draft.length)
        for b, count in enumerate(np.asarray(tested)):
            here = slice(place[b], place[b] + count)
            np.testing.assert_allclose(rows[b].rejection.low[here], distance[b, :count], atol=2e-5)
            compared += count
        place += np.asarray(record.emitted)
    kept = answers.read(workdir, row["answers"])
    assert compared == sum(answer["counts"]["tested"] for answer in kept) > 10


def test_the_table_of_a_workdir(workdir, tmp_path):
    out = tmp_path / "out.jsonl"
    text = replay(f"{workdir}#{COLD}", options(out=str(out)))
    [own] = [v for k, v in cells(text).items() if "alpha=0.8" in k]
    decoded = quality_row(workdir, COLD)
    assert own[2].split(" [")[0] == own[3] == f"{decoded['tokens_per_expert_call']:.2f}"
    low, high = map(float, re.search(r"\[(.*), (.*)\]", own[2]).groups())
    assert low <= float(own[3]) <= high and own[4] == "+0.00"
    assert len(cells(text)) == 2  # what was measured at the same temperature
    _, _, found = recorded(workdir, COLD)
    count = sum(len(answer.tokens) for answer in found)
    size = found[0].vocab_size
    assert f"4 with {count} positions, all of {size} tokens saved" in text
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 2 * 4 and {row["id"] for row in rows} == {a.id for a in found}
    assert sum(len(row["rejection_low"]) for row in rows) == 2 * count
    mean = np.mean([x for row in rows[4:] for x in row["rejection_low"]])
    assert own[0] == f"{mean:.3f}"
    # All recordings, each at its own temperature; and rules that were never decoded.
    assert replay(workdir, options()).count("**Answers of") == 2
    text = replay(
        f"{workdir}#{HOT}",
        options(rules="lossy,spec".split(","), alphas=("0", "0.5"), draft_lengths=("1", "2")),
    )
    assert len(cells(text)) == 2 * 2 + 2
    assert cells(text)["spec N=2 token T=1"][:3] == cells(text)["lossy alpha=0 N=2 token T=1"][:3]


# ---- saving ----


def test_the_most_probable_tokens_alone_give_bounds(config, workdir, copy):
    shutil.rmtree(copy / distributions.FOLDER)
    few = recording.from_flags("3", (HOT,))
    assert evaluation.evaluate(config, str(copy), saved=few).recorded == 4
    exact, between = (recorded(str(path), HOT)[2] for path in (workdir, copy))
    chosen = from_fields(quality_row(workdir, HOT))
    for [truth], [own] in zip(
        positions.replay(exact, [chosen]), positions.replay(between, [chosen]), strict=True
    ):
        for (true, _), (low, high) in zip(truth[:2], own[:2], strict=True):
            assert (low <= true + 1e-5).all() and (true <= high + 1e-5).all()
    assert " to " in replay(f"{copy}#{HOT}", options(rules=("token_v3", "mixture")))


def test_what_a_kill_cut_short_is_scored_again(config, workdir, copy):
    _, path, before = recorded(str(copy), COLD)
    data = pathlib.Path(path).read_bytes()
    rows = answers.read(str(copy), pathlib.Path(path).name.split(".")[0], distributions.FOLDER)
    first = answers._packed(rows[:1])
    pathlib.Path(path).write_bytes(first + answers._packed(rows[1:])[:-40])
    with pytest.raises(UserError, match="damaged archive"):
        replay(f"{copy}#{COLD}", options())
    pathlib.Path(path).write_bytes(first)
    with pytest.raises(UserError, match="has 1 of the 4 answers of test; run scripts/evaluate.py"):
        replay(f"{copy}#{COLD}", options())
    pathlib.Path(path).write_bytes(first + answers._packed(rows[1:])[:-40])
    assert evaluation.evaluate(config, str(copy), saved=SAVED).recorded == 3
    assert pathlib.Path(path).read_bytes().startswith(first) and len(data) > len(first)
    for old, new in zip(before, recorded(str(copy), COLD)[2], strict=True):
        assert old.id == new.id
        np.testing.assert_allclose(old.expert.logprobs, new.expert.logprobs, atol=1e-4)
    assert evaluation.evaluate(config, str(copy), saved=SAVED).recorded == 0


@pytest.mark.slow
@pytest.mark.parametrize("what", ["whole", "3"])
def test_a_sharded_pair_saves_the_same(config, what, tmp_path):
    found = []
    for name, mesh in (("one", None), ("mesh", {"data": 4, "model": 2})):
        given = copy_of(config, mesh)
        made = recording.from_flags(what, (COLD,))
        evaluation.evaluate(given, str(tmp_path / name), saved=made)
        found.append(recorded(str(tmp_path / name), COLD)[2])
    chosen = [setting({"rule": "token_v3", "alpha": 0.8, "draft_length": 2, "temperature": 1.0})]
    for one, other in zip(*found, strict=True):
        assert one.id == other.id and one.tokens.tolist() == other.tokens.tolist()
        assert one.vocab_size == other.vocab_size and one.top == other.top
        [[a]], [[b]] = (positions.replay([answer], chosen) for answer in (one, other))
        np.testing.assert_allclose(a.rejection, b.rejection, atol=1e-4)
        np.testing.assert_allclose(a.deferral, b.deferral, atol=1e-4)


def copy_of(config, mesh):
    given = config.copy_and_resolve_references()
    if mesh:
        given.mesh = mesh
    return given


def test_a_smaller_split_and_other_prompts_are_told_apart(config, copy):
    fewer = copy_of(config, None)
    fewer.evaluate.splits.test = 3
    assert evaluation.evaluate(fewer, str(copy), saved=SAVED) == (4 + 3 * 2, [], 0)
    before = replay(f"{copy}#{COLD}", options())
    assert "4 with" in before and len(cells(before)) == 2
    # An answer that was saved for another prompt gives way to the one that is asked now.
    row, path, _ = recorded(str(copy), COLD)
    name = row["answers"]
    rows = answers.read(str(copy), name, distributions.FOLDER)
    rows[0]["prompt"] = "another"
    pathlib.Path(path).write_bytes(answers._packed(rows))
    assert evaluation.evaluate(config, str(copy), saved=SAVED).recorded == 1
    assert replay(f"{copy}#{COLD}", options()) == before


@pytest.mark.parametrize(
    ("what", "of", "message"),
    [
        ("some", (), "--save_distributions=some must be whole or a number of tokens"),
        ("0", (), "--save_distributions=0 must be"),
        (None, ("spec",), "--distributions_of needs --save_distributions"),
        ("99999", (), "--save_distributions=99999 is more than the"),
        ("4", ("opt",), "'opt' is none of the settings"),
        ("4", (), "neither the expert alone nor spec, .* name a setting with --distributions_of"),
        ("4", (COLD,), "saved with --save_distributions=whole; give that, or remove the file"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_done(
    config, workdir, what, of, message
):
    before = sorted(pathlib.Path(workdir).rglob("*"))
    with pytest.raises(UserError, match=message):
        evaluation.evaluate(config, workdir, saved=recording.from_flags(what, of))
    assert sorted(pathlib.Path(workdir).rglob("*")) == before


def test_without_a_name_the_answers_are_the_experts_own():
    entries = [
        {"method": "autoregressive_drafter"},
        {"rule": "spec", "draft_length": 2},
        {"rule": "token_v3", "alpha": 0.3, "draft_length": 2},
    ]
    engine = Engine.build(tiny_pair.make(), [[5]], 4)
    made = recording.from_flags("4", ())
    for first, expected in (({"method": "autoregressive_expert"}, 0), (entries[0], 2)):
        settings = [setting(entry) for entry in (first, *entries)]
        jobs = [Job(QUALITY, s, "test", 4) for s in settings]
        assert made.jobs(jobs, engine) == [jobs[expected]]


# ---- other engines ----


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_file_of_another_engine(tmp_path):
    rng = np.random.default_rng(0)
    drawn = [saved.draw(rng, 9) for _ in range(5)]
    path = written(
        tmp_path / "vllm.jsonl",
        [saved.row(models, 5, more=False, id=f"q{i}") for i, models in enumerate(drawn)],
    )
    text = replay(path, options(rules=("spec", "token_v3"), temperature=1.0))
    assert "Answers of vllm.jsonl: 5 with 45 positions, the 5 most probable of 12" in text
    truth = np.mean([np.maximum(np.exp(q) - np.exp(p), 0).sum(1) for q, p in drawn])
    low, high = map(float, re.findall(r"[\d.]+", cells(text)["spec N=2 token T=1"][0]))
    assert low - 0.001 <= truth <= high + 0.001 and high - low < 0.2
    assert cells(text)["spec N=2 token T=1"][3:] == ["–", "–"]
    # Every rule that needs no head; at temperature 0 where none is given.
    every = cells(replay(path, options()))
    assert len(every) == 17 and all("T=0" in name for name in every)


def rows_of(top=3):
    rng = np.random.default_rng(1)
    return [saved.row(saved.draw(rng), top, id=i) for i in range(3)]


def changed(place, **fields):
    rows = rows_of()
    rows[place] |= fields
    return rows


def of(field, *values):
    return [{**row, field: value} for row, value in zip(rows_of(), values, strict=False)]


def without(field, model=None):
    rows = rows_of()
    del (rows[1][model] if model else rows[1])[field]
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no answers"),
        (without("tokens"), "line 2: it lacks tokens"),
        (without("expert"), "line 2: it lacks expert"),
        (without("logprobs", "drafter"), "line 2: drafter: it lacks logprobs"),
        (without("top"), "line 2: drafter: it lists ids, and the row has no `top`"),
        (changed(1, vocab_size=5), "line 2: .* and there are 5 tokens; are they of another"),
        (changed(2, vocab_size=13), "line 3: 13 tokens, top 3 saved, and the answers before it 12"),
        (of("pair", "a", "b"), "line 2: it is of pair b, .* of a; replay those of one pair at"),
        (of("tokenizer", "a", None, "b"), "line 3: it is of tokenizer b, .* of a; replay those"),
        (changed(1, tokenizer=3), "line 2: tokenizer=3 .*must be a text"),
        (changed(1, id=0), "line 2: id 0 stands in line 1"),
        (changed(1, id=None), "line 2: id=.* must be a whole number or a text"),
        (changed(0, top=13), "line 1: top=13 is more than vocab_size=12"),
        (changed(0, tokens=[1, 2]), "line 1: drafter: ids must be a list, one entry for each of"),
        (changed(0, tokens=[1.5] * 6), "line 1: tokens must be a list of token ids"),
        (changed(0, tokens="x"), "line 1: tokens must be a list of token ids"),
        (changed(0, drafter=3), "line 1: drafter must be an object"),
    ],
)
def test_files_that_cannot_be_replayed(rows, message, tmp_path):
    out = tmp_path / "out.jsonl"
    with pytest.raises(UserError, match=message) as raised:
        replay(written(tmp_path / "x.jsonl", rows), options(out=str(out)))
    assert "\n" not in str(raised.value) and not out.exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("logprobs", [[-0.1] * 4] * 6, "lists . ids and 4 logprobs|sum to"),
        ("rest", [0.9] * 6, "the probabilities at position 0 sum to .* log-probabilities at temp"),
        ("rest", [-0.1] * 6, "rest=-0.1 must be at least 0"),
        ("entropy", [0.1], "entropy must be a list, one entry for each of the 6 tokens"),
        ("chosen", [0, 1, 2, 3, 4, 12], "chosen has the id 12, and there are 12 tokens"),
    ],
)
def test_models_that_cannot_be_replayed(field, value, message, tmp_path):
    rows = rows_of()
    rows[0]["expert"][field] = value
    with pytest.raises(UserError, match=f"line 1: expert: .*({message})"):
        replay(written(tmp_path / "x.jsonl", rows), options())


def test_whole_distributions_of_another_size_and_files_cut_short(tmp_path):
    rows = [saved.row(saved.draw(np.random.default_rng(0)))]
    rows[0]["expert"] = saved.row(saved.draw(np.random.default_rng(0), size=13))["expert"]
    with pytest.raises(UserError, match="expert: logprobs have 78 numbers, and 6 tokens of a voc"):
        replay(written(tmp_path / "x.jsonl", rows), options())
    rows[0]["expert"] = {"logprobs": "§"}
    with pytest.raises(UserError, match="expert: whole logprobs must be base64 of float32"):
        replay(written(tmp_path / "x.jsonl", rows), options())
    path = tmp_path / "cut.jsonl"
    text = pathlib.Path(written(path, rows_of())).read_text()
    path.write_text(text[:-30])
    with pytest.raises(UserError, match="line 3 is no JSON .*; the file ends in it: was it cut"):
        replay(str(path), options())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alphas": ("x",)}, "--alpha=x must be a number"),
        ({"draft_lengths": ("1.5",)}, "--draft_length=1.5 must be a whole number"),
        ({"draft_lengths": ("0",)}, "--draft_length=0 must be at least 1"),
        ({"rules": ("best",)}, "rule 'best' is unknown"),
        ({"rules": ("learned",)}, "rule learned needs head"),
        ({"knobs": "["}, "--knobs=. is no JSON"),
        ({"temperature": -1.0}, "temperature=-1.0 must be at least 0"),
        (
            {"knobs": '{"method": "kernel", "rule": "cactus", "delta": 0.1}', "rules": ("spec",)},
            "setting cactus .* cannot be replayed: saved are distributions of the expert and the",
        ),
        (
            {"knobs": '{"drafter": "lookup", "otherwise": "drafter"}', "rules": ("spec",)},
            "setting spec over lookup or drafter .* cannot be replayed: .*; leave method, drafter",
        ),
    ],
)
def test_flags_that_say_nothing(given, message, tmp_path):
    path = written(tmp_path / "x.jsonl", rows_of())
    with pytest.raises(UserError, match=message):
        replay(path, options(**given))


def test_workdirs_without_distributions(copy):
    with pytest.raises(UserError, match="'alpha=9' is none of the settings"):
        replay(f"{copy}#alpha=9", options())
    with pytest.raises(UserError, match="no distributions of split validation; run scripts/eval"):
        replay(str(copy), options(split="validation"))
    with pytest.raises(UserError, match="no rule was measured at temperature 0.5; give --rules"):
        replay(str(copy), options(temperature=0.5))


def test_distributions_of_another_pair_of_as_many_tokens(copy):
    row, path, found = recorded(str(copy), COLD)
    assert {each.made_by["tokenizer"] for each in found} == {row["tokenizer"]}
    rows = [each for _, each in text_files.read_rows(path)]
    for name in distributions.MADE_BY:
        other = [{**each, name: "another"} for each in rows]
        pathlib.Path(path).write_bytes(gzip.compress("\n".join(map(json.dumps, other)).encode()))
        with pytest.raises(UserError, match=f"line 1: it is of {name} another, .* {row[name]}; re"):
            replay(f"{copy}#{COLD}", options())


@pytest.mark.slow
def test_the_script(workdir):
    command = [sys.executable, "scripts/replay.py"]
    done = subprocess.run([*command, f"--distributions={workdir}"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("**Answers of") == 2, done.stderr
    with pytest.raises(UserError, match="^x is missing$"):
        called.call("scripts/replay.py", "--distributions=x")
