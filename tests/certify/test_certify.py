"""The whole way from files and workdirs to a text."""

import json
import re
import subprocess
import sys

import ml_collections
import numpy as np
import pytest

from speccascade import tasks
from speccascade.certify.certification import Options, certify
from speccascade.errors import UserError
from speccascade.tasks import aggregate, overlap
from tests.certify import files
from tests.report import synthetic
from tests.training import tiny

SIZE = 400
RIGHT = [1.0] * 300 + [0.0] * 100


def lost(count, gained=0):
    """Scores that lose `count` of the right answers, and are right where others were wrong."""
    return [0.0] * count + RIGHT[count : SIZE - gained] + [1.0] * gained


def rows_of(text):
    """Returns the table's cells by the answers' name."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {cells[0].strip("`"): cells[1:] for cells in lines}


def sentence(text, name):
    """Returns what is said of a setting."""
    [line] = [line for line in text.splitlines() if line.startswith(f"- `{name}` ")]
    return line


@pytest.fixture
def before(tmp_path):
    return files.plain(tmp_path / "exact.jsonl", RIGHT)


def test_three_settings_three_verdicts(before, tmp_path):
    afters = [
        files.plain(tmp_path / f"{name}.jsonl", scores)
        for name, scores in (("fine", RIGHT), ("unclear", lost(24, 10)), ("bad", lost(90)))
    ]
    text = certify(before, afters, Options(max_quality_loss=0.05))
    table = rows_of(text)
    assert [cells[-1] for cells in table.values()] == [
        "before", "loses at most 0.05", "not told apart", "worse",
    ]  # fmt: skip
    assert table["fine"][2] == "0.000" and float(table["fine"][3]) < 0.05
    assert table["bad"][1:3] == ["0.525", "0.225"]
    assert "loses at most 0.05 with 95 % confidence: its loss is 0.000" in sentence(text, "fine")
    unclear = sentence(text, "unclear")
    assert "not told apart at this sample size (n = 400): its loss is 0.035" in unclear
    more = int(re.search(r"about ([\d,]+) more prompts", unclear)[1].replace(",", ""))
    # So many more of the same kind do tell, and half as many do not: of the two that failed first.
    for share in (1.0, 0.5):
        times = 1 + share * more / SIZE
        kinds = [int(times * count) for count in (24, 10, 276, 90)]
        pairs = [[(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0)][k] for k in range(4)]
        rows = [pair for pair, count in zip(pairs, kinds, strict=True) for _ in range(count)]
        base, one = (
            files.plain(tmp_path / f"{name}.jsonl", list(column))
            for name, column in zip(("base", "one"), zip(*rows, strict=True), strict=True)
        )
        options = Options(max_quality_loss=0.05, confidence=1 - 0.05 / 2)
        assert rows_of(certify(base, [one], options))["one"][-1] == (
            "loses at most 0.05" if share == 1 else "worse"
        )
    worst = re.search(r"is worse: its loss is 0.225, with 95 % confidence at least (\S+)", text)
    assert 0.1 < float(worst[1].rstrip(";.")) < 0.225


def test_what_one_setting_may_promise_several_may_not(before, tmp_path):
    afters = [files.plain(tmp_path / f"a{i}.jsonl", lost(7)) for i in range(8)]
    alone = certify(before, afters[:1], Options(max_quality_loss=0.05))
    assert "| loses at most 0.05 |" in alone
    together = certify(before, afters, Options(max_quality_loss=0.05))
    assert "| loses at most 0.05 |" not in together and "share the error (Holm)" in together
    ordered = certify(before, afters, Options(max_quality_loss=0.05, ordered=True))
    assert ordered.count("| loses at most 0.05 |") == 8


def test_settings_in_order_end_at_the_first_failure(before, tmp_path):
    afters = [
        files.plain(tmp_path / f"a{i}.jsonl", lost(count)) for i, count in enumerate((0, 40, 0))
    ]
    text = certify(before, afters, Options(max_quality_loss=0.05, ordered=True))
    outcomes = [cells[-1] for cells in rows_of(text).values()][1:]
    assert outcomes == ["loses at most 0.05", "worse", "not tested"]


def test_seconds_give_a_speed_up_per_token_and_without_tokens_per_answer(before, tmp_path):
    rng = np.random.default_rng(0)
    tokens = rng.integers(20, 60, SIZE)
    exact = (tokens * 0.01).tolist()
    fast = (tokens * 0.01 / 1.5 * rng.lognormal(0, 0.2, SIZE)).tolist()
    counts = tokens.tolist()
    base = files.plain(tmp_path / "base.jsonl", RIGHT, seconds=exact, tokens=counts)
    one = files.plain(
        tmp_path / "fast.jsonl", RIGHT, seconds=fast, tokens=counts, acceptance=[2.0, 4.0] * 200
    )
    text = certify(base, [one], Options(max_quality_loss=0.05))
    speed, accepted = rows_of(text)["fast"][4:6]
    figure, low, high = map(float, re.match(r"(\S+) \[(\S+), (\S+)\]", speed).groups())
    expected = sum(exact) / sum(fast)
    assert figure == pytest.approx(expected, abs=0.006) and low < expected < high
    assert high - low < 0.1 and accepted == "3.00" and "per token (400 prompts)" in text
    without = files.plain(tmp_path / "plain.jsonl", RIGHT, seconds=fast)
    text = certify(base, [without], Options(max_quality_loss=0.05))
    assert "times as fast per answer (400 prompts)" in text
    assert rows_of(certify(before, [one], Options(max_quality_loss=0.05)))["fast"][4] == "–"


def test_samples_are_averaged_by_prompt(before, tmp_path):
    seeds = [
        files.plain(tmp_path / f"s{i}.jsonl", [float(k % 4 < 3 - (k + i) % 2) for k in range(SIZE)])
        for i in range(4)
    ]
    text = certify(before, [",".join(seeds)], Options(max_quality_loss=0.1))
    name = "s0, s1, s2, s3"
    assert rows_of(text)[name][:2] == ["4", "0.625"]
    assert "a prompt's score averages 4 samples" in sentence(text, name)


# ---- ways to score ----


def texts(path, answers):
    return files.write(path, [{"id": i, "text": text} for i, text in enumerate(answers)])


def test_references_and_a_metric(tmp_path):
    references = files.write(
        tmp_path / "r.jsonl", [{"id": i, "answers": [f"town {i}"]} for i in range(60)]
    )
    base = texts(tmp_path / "base.jsonl", [f"It is town {i}." for i in range(60)])
    one = texts(tmp_path / "one.jsonl", [f"Town {i % 50}!" for i in range(60)])
    options = dict(references=references, max_quality_loss=0.3)
    text = certify(base, [one], Options(metric="contains", **options))
    assert rows_of(text)["base"][1] == "1.000" and rows_of(text)["one"][1] == "0.833"
    text = certify(base, [one], Options(metric="exact_match", **options))
    assert rows_of(text)["base"][1] == "0.000" and rows_of(text)["one"][1] == "0.833"


def test_final_numbers_of_worked_and_of_plain_references(tmp_path):
    references = files.write(
        tmp_path / "r.jsonl",
        [{"id": i, "answers": f"so #### {i}" if i % 2 else str(i)} for i in range(40)],
    )
    base = texts(tmp_path / "base.jsonl", [f"#### {i}" for i in range(40)])
    one = texts(tmp_path / "one.jsonl", [f"#### {i + (i < 10)}" for i in range(40)])
    options = Options(references=references, metric="final_number", max_quality_loss=0.5)
    table = rows_of(certify(base, [one], options))
    assert (table["base"][1], table["one"][1]) == ("1.000", "0.750")


def test_bleu_is_that_of_all_answers_together(tmp_path):
    rng = np.random.default_rng(0)
    words = np.array("the quick brown fox jumps over a lazy dog today".split())
    own = [" ".join(rng.permutation(words)) for _ in range(60)]
    worse = [text.replace("quick brown", "slow red").replace("over a", "on") for text in own]
    references = files.write(
        tmp_path / "r.jsonl", [{"id": i, "answers": text} for i, text in enumerate(own)]
    )
    base, one = texts(tmp_path / "base.jsonl", own), texts(tmp_path / "one.jsonl", worse)
    options = Options(references=references, metric="bleu", max_quality_loss=60.0)
    text = certify(base, [one], options)
    statistics = [overlap.bleu_statistics(a, b) for a, b in zip(worse, own, strict=True)]
    expected = aggregate.bleu(np.array(statistics))
    assert rows_of(text)["one"][1] == f"{expected:.1f}" and rows_of(text)["base"][1] == "100.0"
    assert "bleu is tested by a jackknifed t-test" in text


def test_the_share_of_texts_that_differ(tmp_path):
    base = texts(tmp_path / "base.jsonl", [f"answer {i}" for i in range(200)])
    one = texts(tmp_path / "one.jsonl", [f"answer {i - (i < 10)}" for i in range(200)])
    text = certify(base, [one], Options(metric="same_text", max_quality_loss=0.2))
    assert rows_of(text)["one"][1:3] == ["0.950", "0.050"]


def test_a_task_scores_by_the_ids_of_its_examples(tmp_path):
    questions = files.write(
        tmp_path / "q.jsonl",
        [{"prompt": f"Where {i}?", "answers": [f"town {i}"], "split": "test"} for i in range(40)],
    )
    rows = [{"id": i + 1, "text": f"town {i}"} for i in range(40)]
    base = files.write(tmp_path / "base.jsonl", rows)
    one = files.write(tmp_path / "one.jsonl", [{**row, "text": "?"} for row in rows])
    options = Options(task="questions", task_path=questions, max_quality_loss=0.1)
    text = certify(base, [one], options)
    assert rows_of(text)["one"] == ["1", "0.000", "1.000", "1.000", "–", "–", "worse"]
    strict = Options(task="questions", task_path=questions, metric="f1", max_quality_loss=0.1)
    longer = [{**row, "text": f"a nice {row['text']}"} for row in rows]  # two of three words
    one = files.write(tmp_path / "longer.jsonl", longer)
    assert rows_of(certify(base, [one], strict))["longer"][1] == "0.800"
    with pytest.raises(UserError, match="line 1: id 99 is none of the task questions"):
        certify(base, [files.write(tmp_path / "x.jsonl", [{"id": 99, "text": ""}])], options)


# ---- engines' own files ----


def test_files_of_other_engines_side_by_side(tmp_path):
    ids = range(100, 130)
    base = files.write(tmp_path / "vanilla.jsonl", [files.spec_bench(i, [f"t{i}"]) for i in ids])
    one = files.write(tmp_path / "relaxed.jsonl", [files.spec_bench(i, [f"t{i}"]) for i in ids])
    text = certify(base, [one], Options(metric="same_text", max_quality_loss=0.2))
    assert rows_of(text)["relaxed"][:2] == ["1", "1.000"]
    assert rows_of(text)["relaxed"][4:6] == ["1.00 [1.00, 1.00]", "2.00"]
    logged = [
        files.write(tmp_path / f"{name}.jsonl", [files.harness(i, "4", right) for i in range(90)])
        for name, right in (("exact", 1.0), ("lossy", 0.0))
    ]
    table = rows_of(certify(logged[0], logged[1:], Options(max_quality_loss=0.1)))
    assert table["lossy"][1] == "0.000" and table["lossy"][-1] == "worse"


def test_files_of_one_name_are_told_apart_by_their_paths(tmp_path):
    paths = []
    for folder in ("exact", "lossy"):
        (tmp_path / folder).mkdir()
        paths.append(files.plain(tmp_path / folder / "samples.jsonl", RIGHT))
    text = certify(paths[0], paths[1:], Options(max_quality_loss=0.05))
    assert list(rows_of(text)) == paths


# ---- our own workdirs ----

TASK = {**tiny.get_config().task.to_dict(), "test_size": 200}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A workdir of made-up scores and times; examples are those of the real task."""
    noise = [0.95, 1.05] * 4
    settings = [
        (synthetic.EXPERT, RIGHT[:200], 1.0),
        (synthetic.speculative("token_v3", alpha=0.2), lost(1)[:200], 0.5),
        (synthetic.speculative("token_v3", alpha=0.8, seed=1), lost(30)[:200], None),
        (synthetic.speculative("token_v3", alpha=0.8, seed=2), lost(50)[:200], None),
    ]
    rows = []
    for entry, scores, relative in settings:
        rows.append(synthetic.quality(entry, "test", scores))
        if relative is not None:
            ms = [10 * relative * x for x in noise]
            rows.append(synthetic.timing(entry, "test", ms, [10.0] * 8))
    config = {
        "task": TASK,
        "pair": "shipped:gsm_symbolic",
        "evaluate": {
            "settings": [entry for entry, _, _ in settings],
            "splits": {"test": 200},
            "timing": {"num_examples": 8, "trials": 3},
        },
    }
    folder = tmp_path_factory.mktemp("work")
    (folder / "config.json").write_text(json.dumps(config))
    files.write(folder / "results.jsonl", rows)
    return str(folder)


def test_a_workdir_gives_scores_and_times(workdir):
    text = certify(workdir, [workdir], Options(max_quality_loss=0.1))
    table = rows_of(text)
    assert list(table) == [
        "autoregressive_expert T=0",
        "token_v3 alpha=0.2 N=3 token T=0",
        "token_v3 alpha=0.8 N=3 token T=0",
    ]
    one, two = list(table.values())[1:]
    assert one[1:3] == ["0.995", "0.005"] and one[-1] == "loses at most 0.1"
    speed = re.match(r"2\.00 \[(\S+), (\S+)\]", one[4])
    assert 1.85 < float(speed[1]) < 2 < float(speed[2]) < 2.15 and one[5] == "2.50"
    assert two[:3] == ["2", "0.800", "0.200"] and two[4] == "–" and two[-1] == "worse"
    named = certify(
        f"{workdir}#autoregressive_expert", [f"{workdir}#alpha=0.2"], Options(max_quality_loss=0.1)
    )
    assert list(rows_of(named)) == list(table)[:2]


def test_answers_of_another_engine_beside_a_workdir(workdir, tmp_path):
    examples = tasks.make(ml_collections.ConfigDict(TASK)).examples("test", 200)
    rows = [{"id": e.id, "text": e.answer if i >= 5 else "?"} for i, e in enumerate(examples)]
    other = files.write(tmp_path / "other.jsonl", rows)
    table = rows_of(certify(workdir, [other], Options(max_quality_loss=0.1)))
    assert table["other"][1:3] == ["0.975", "0.025"]


# ---- bad input ----


def refused(message, before, afters, **options):
    with pytest.raises(UserError, match=message) as raised:
        certify(before, afters, Options(**{"max_quality_loss": 0.05, **options}))
    assert "\n" not in str(raised.value)


def test_ids_that_do_not_match(before, tmp_path):
    few = files.plain(tmp_path / "few.jsonl", RIGHT[:-7])
    refused("few lacks 7 ids of exact: 393, 394, 395, 396, 397 and 2 more; give", before, [few])
    refused("exact has 7 that few lacks: 393, 394", few, [before])
    rows = [{"id": f"x{i}", "score": 1.0} for i in range(SIZE)]
    other = files.write(tmp_path / "other.jsonl", rows)
    refused("other lacks 400 ids of exact: 0, .* and has 400 that exact lacks", before, [other])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0] * 399 + [1.5], "line 400: score=1.5 is outside 0 to 1; correct it, or give --full_"),
        ([-0.1] + [1.0] * 399, "line 1: score=-0.1 is outside 0 to 1"),
        (["yes"] * 400, "line 1: score must be one number, not 'yes'"),
        ([[1.0, 2.0]] * 400, "line 1: score must be one number, not .*--references and --metric"),
    ],
)
def test_scores_outside_their_range(scores, message, before, tmp_path):
    refused(f"odd.jsonl {message}", before, [files.plain(tmp_path / "odd.jsonl", scores)])


def test_scores_of_another_scale(tmp_path):
    base = files.plain(tmp_path / "base.jsonl", [100.0] * 100)
    one = files.plain(tmp_path / "one.jsonl", [99.0] * 100)
    text = certify(base, [one], Options(max_quality_loss=20.0, full_score=100.0))
    assert "loses at most 20" in text and rows_of(text)["one"][1] == "99.0"


def test_too_few_prompts_for_any_verdict(tmp_path):
    base, one = (files.plain(tmp_path / f"{n}.jsonl", [x] * 5) for n, x in (("a", 1.0), ("b", 0.0)))
    refused("5 prompts are too few for any verdict on score, .* give at least (\\d+)", base, [one])
    with pytest.raises(UserError) as raised:
        certify(base, [one], Options(max_quality_loss=0.05))
    least = int(re.search(r"at least (\d+)", str(raised.value))[1])
    enough = [files.plain(tmp_path / f"{x}.jsonl", [x] * least) for x in (1.0, 0.0)]
    assert "| worse |" in certify(enough[0], enough[1:], Options(max_quality_loss=0.05))
    short = [files.plain(tmp_path / f"{x}.jsonl", [x] * (least - 1)) for x in (1.0, 0.0)]
    refused("too few", short[0], short[1:])


def test_too_few_prompts_for_bleu(tmp_path):
    references = files.write(tmp_path / "r.jsonl", [{"id": i, "answers": "a b"} for i in range(9)])
    base = texts(tmp_path / "base.jsonl", ["a b"] * 9)
    refused("9 prompts are too few", base, [base], references=references, metric="bleu")


def test_nothing_to_score_by(tmp_path):
    base = texts(tmp_path / "base.jsonl", ["a"] * 20)
    refused("nothing says how good the answers of .*base.jsonl are: give", base, [base])
    rows = [{"id": i, "f1": 1.0, "em": 1.0} for i in range(20)]
    several = files.write(tmp_path / "several.jsonl", rows)
    refused("several scores; give --score: em, f1", several, [several])
    refused("line 1 has no score 'x'; its own: f1, em", several, [several], score="x")
    scored = files.plain(tmp_path / "scored.jsonl", [1.0] * 20)
    refused("line 1 has no text to score", scored, [scored], metric="same_text")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 1.0}, "--confidence=1 must be between 0 and 1"),
        ({"max_quality_loss": 1.0}, "max_quality_loss=1 must be at least 0 and below 1"),
        ({"full_score": 0.0}, "--full_score=0 must be a positive number"),
        ({"references": "r"}, "--references and --metric go together"),
        ({"metric": "f1"}, "--references and --metric go together"),
        ({"task": "gsm8k", "score": "f1"}, "--task and --score are several ways to score"),
        ({"metric": "same_text", "score": "f1"}, "--score and --metric are several ways"),
        ({"task_path": "x"}, "--task_path needs --task"),
        ({"references": "r.jsonl", "metric": "best"}, "--metric 'best' is unknown; choose one of"),
        ({"task": "nothing"}, "unknown task 'nothing'"),
    ],
)
def test_flags_that_say_nothing(options, message, before):
    refused(message, before, [before], **options)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 1}], "line 1: 'answers' is missing"),
        ([{"id": 1, "answers": []}], "line 1: answers must be a list of at least one text"),
        ([{"answers": "x"}], "line 1: a reference has an id"),
        ([{"id": 1, "answers": "x"}] * 2, "line 2: id 1 has a reference already"),
        ([{"id": 1, "answers": "x"}], "line 1: id 0 is none of .*r.jsonl"),
    ],
)
def test_references_that_cannot_be_used(rows, message, tmp_path):
    base = texts(tmp_path / "base.jsonl", ["a"] * 20)
    path = files.write(tmp_path / "r.jsonl", rows)
    refused(message, base, [base], references=path, metric="f1")


def test_workdirs_that_cannot_be_used(workdir, before):
    refused("of their task; score them anew with scripts/score.py", workdir, [workdir], score="x")
    refused("has no rows of split validation", workdir, [workdir], split="validation")
    refused("'alpha=9' is none of the settings", workdir, [f"{workdir}#alpha=9"])
    refused("line 1 has no text to score", workdir, [before])


@pytest.mark.slow
def test_the_script(before, tmp_path):
    command = [sys.executable, "scripts/certify.py", f"--before={before}", "--max_quality_loss=0.1"]
    done = subprocess.run([*command, f"--after={before},x"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: x is missing\n")
