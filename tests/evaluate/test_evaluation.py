import dataclasses
import fcntl
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import ml_collections
import numpy as np
import pytest

from speccascade import models, pairs, tasks, text
from speccascade.errors import UserError
from speccascade.evaluate import evaluation, forecast, origin, prepared, quality
from speccascade.evaluate.jobs import QUALITY, TEACHER_FORCED, TIMING
from speccascade.inference.reading import from_fields, setting
from speccascade.report import compare_answers, report, report_beside
from speccascade.tasks import sandbox
from speccascade.workdir import answers, provenance, results
from tests import called, random_params, tiny_pair
from tests.tasks.rows import ROWS, numbered
from tests.text import makers

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The directory of a random pair."""
    directory = str(tmp_path_factory.mktemp("pair"))
    pairs.export(tiny_pair.make(), directory, {})
    return directory


@pytest.fixture(scope="module")
def swept(exported, tmp_path_factory):
    """A workdir with the whole sweep in it."""
    workdir = str(tmp_path_factory.mktemp("sweep"))
    outcome = evaluation.evaluate(tiny_pair.get_config(exported), workdir)
    assert outcome == evaluation.Outcome(measured=44, failed=[])
    return workdir


def by_key(workdir):
    return {row["key"]: row for row in results.read(workdir)}


def test_every_setting_has_a_row_per_kind_and_split(swept):
    rows = results.read(swept)
    found = {(row["kind"], row["split"], from_fields(row)) for row in rows}
    # Of the rules: one oracle and two alphas at either temperature.
    assert len(found) == len(rows) == 2 * (2 * 8 + 2 * 3)
    for row in rows:
        assert row["num_examples"] == (
            2 if row["kind"] == TIMING else {"validation": 5, "test": 4}[row["split"]]
        )


def test_rows_have_what_they_promise(swept):
    for row in results.read(swept):
        if row["kind"] == TIMING:
            assert row["ms_per_token"] > 0 and row["speedup"] > 0
            assert row["speedup_ci"][0] <= row["speedup"] <= row["speedup_ci"][1]
            assert (row["answers_compared"], row["answers_differing"]) == (2, 0)  # in float32
            assert len(row["answer_digests"]) == len(row["first_ms"]) == 2
            continue
        assert row["prompts_cut"] == 0 <= row["answers_cut"] <= row["num_examples"]
        if row["kind"] == TEACHER_FORCED:
            assert row["positions"] == sum(row["lengths"]) > 0
            assert len(row["lengths"]) == len(row["tv_sums" if row["rule"] else "lengths"])
            continue
        assert len(row["scores"]) == row["num_examples"]
        assert row["quality"] == np.mean(row["scores"]) and len(row["quality_ci"]) == 2
        speculative = row["method"] == "speculative"
        assert (row["rejection_rate"] is not None) == (row["tv_mean"] is not None) == speculative
        assert (row["deferral_rate"] is not None) == (row["rule"] == "token_v3")
        if speculative:
            assert 1 <= row["tokens_per_expert_call"] <= 3
            assert 0 <= row["rejection_rate"] <= 1
            assert row["drafter_calls"] >= 2 * row["expert_calls"]
            first, second = row["acceptance_by_position"]
            assert 1 >= first >= second >= 0
            # Every block adds what it kept and a token, but one may end within its draft.
            assert row["tokens_per_expert_call"] <= 1 + first + second
        assert (row["expert_calls"] == 0) == (row["method"] == "autoregressive_drafter")
        assert row["tokens"] <= 6 * row["num_examples"]
        assert row["multiply_adds_per_token"] > 0


def test_started_again_only_what_is_missing_is_done(exported, swept, tmp_path):
    before = (pathlib.Path(swept) / results.FILE).read_text().splitlines(keepends=True)
    workdir = tmp_path / "w"
    workdir.mkdir()
    (workdir / "config.json").write_text((pathlib.Path(swept) / "config.json").read_text())
    lost = json.loads(before[3])
    assert lost["kind"] == QUALITY
    # A kill cut the last row short and one more was never made.
    (workdir / results.FILE).write_text("".join(before[:3] + before[4:])[:-20])
    outcome = evaluation.evaluate(tiny_pair.get_config(exported), str(workdir))
    assert outcome == evaluation.Outcome(measured=2, failed=[])
    after = (workdir / results.FILE).read_text().splitlines(keepends=True)
    assert after[:-2] == before[:3] + before[4:-1]
    assert by_key(workdir).keys() == by_key(swept).keys()
    # In another batch, the same answers.
    again = by_key(workdir)[lost["key"]]
    assert {**again, "seconds": None} == {**lost, "seconds": None}


def test_nothing_is_done_where_nothing_is_missing(exported, swept):
    before = (pathlib.Path(swept) / results.FILE).read_text()
    assert evaluation.evaluate(tiny_pair.get_config(exported), swept).measured == 0
    assert (pathlib.Path(swept) / results.FILE).read_text() == before


def test_another_checkpoint_task_or_edition_makes_other_rows(exported, tmp_path, monkeypatch):
    sweep = prepared.prepare(tiny_pair.get_config(exported))
    rows = {sweep.origin.row(job)["key"]: None for job in sweep.jobs}
    assert prepared.missing(sweep, rows) == []
    pair = pairs.load(exported)
    nudged = {**pair.params, "drafter": jax.tree.map(lambda x: x + 1, pair.params["drafter"])}
    pairs.export(dataclasses.replace(pair, params=nudged), tmp_path, {})
    sweep = prepared.prepare(tiny_pair.get_config(str(tmp_path)))
    assert len(prepared.missing(sweep, rows)) == 44
    config = tiny_pair.get_config(exported)
    config.task.seed = 1
    assert len(prepared.missing(prepared.prepare(config), rows)) == 44
    monkeypatch.setattr(origin, "DECODING", 0)
    sweep = prepared.prepare(tiny_pair.get_config(exported))
    kinds = {job.kind for job in prepared.missing(sweep, rows)}
    assert kinds == {QUALITY, TIMING}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"evaluate.max_new_tokens": 5}, "evaluate.max_new_tokens"),
        ({"task.seed": 1}, "task.seed"),
    ],
)
def test_a_config_that_contradicts_the_rows_is_refused(exported, swept, change, field):
    before = (pathlib.Path(swept) / results.FILE).read_text()
    config = tiny_pair.get_config(exported)
    config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=f"made from another config: {field} ") as caught:
        evaluation.evaluate(config, swept)
    assert len(str(caught.value)) < 600
    assert (pathlib.Path(swept) / results.FILE).read_text() == before


def test_a_sweep_grows(exported, swept, tmp_path, monkeypatch):
    workdir = str(tmp_path / "w")
    shutil.copytree(swept, workdir)
    decoded = []
    add = quality.Kept.add

    def counted(self, tally, places):
        decoded.append(len(places))
        add(self, tally, places)

    monkeypatch.setattr(quality.Kept, "add", counted)

    def measured(config):
        decoded.clear()
        before = by_key(workdir)
        outcome = evaluation.evaluate(config, workdir)
        assert not outcome.failed and before.items() <= by_key(workdir).items()
        return [row for key, row in by_key(workdir).items() if key not in before]

    config = tiny_pair.get_config(exported)
    # One alpha more: its rows on either split, answers, references and times.
    config.evaluate.settings += ({"rule": "token_v3", "alpha": 0.5, "draft_length": 2},)
    rows = measured(config)
    assert sorted(row["kind"] for row in rows) == sorted(2 * [QUALITY, TEACHER_FORCED, TIMING])
    assert sum(decoded) == 9
    # An example more of one split: only it is decoded, of every setting.
    config.evaluate.splits.test = 5
    rows = measured(config)
    assert {(row["split"], row["num_examples"]) for row in rows if row["kind"] == QUALITY} == {
        ("test", 5)
    }
    assert sum(decoded) == 9
    small = {from_fields(r): r for r in by_key(workdir).values() if is_test(r, 4)}
    for row in rows:
        if row["kind"] == QUALITY:
            assert row["scores"][:4] == small.get(from_fields(row), row)["scores"][:4]
    # Another split, other times: qualities stay.
    config.evaluate.splits = {"validation": 5, "test": 5, "train": 4}
    config.evaluate.timing.trials = 1
    kinds = [row["kind"] for row in measured(config)]
    assert kinds.count(QUALITY) == 9 and kinds.count(TIMING) == 3 * 9
    # Fewer settings: nothing is measured, nothing is lost, the table has them alone.
    config.evaluate.settings = config.evaluate.settings[:2] + config.evaluate.settings[-1:]
    assert measured(config) == [] and not decoded
    config.evaluate.settings = ({"method": "autoregressive_expert"},)
    assert measured(config) == []
    assert "token_v3" not in report(workdir)[0]


def is_test(row, count):
    return row["kind"] == QUALITY and (row["split"], row["num_examples"]) == ("test", count)


def test_answers_are_kept(exported, swept):
    pair, task = pairs.load(exported), tasks.make(tiny_pair.get_config(exported).task)
    for row in results.read(swept):
        if row["kind"] != QUALITY:
            continue
        kept = {answer["id"]: answer for answer in answers.read(swept, row["answers"])}
        examples = task.examples(row["split"], row["num_examples"])
        assert kept.keys() == {e.id for e in examples}
        for example, score in zip(examples, row["scores"], strict=True):
            answer = kept[example.id]
            assert task.score(answer["text"], example) == score
            assert answer["text"] == pair.tokenizer.decode(answer["tokens"])
        assert sum(len(a["tokens"]) for a in kept.values()) == row["tokens"]


def test_a_kill_loses_no_answer_that_was_written(exported, swept, tmp_path, monkeypatch):
    config = tiny_pair.get_config(exported)
    config.evaluate.batch_size = 2
    config.evaluate.settings = ({"method": "autoregressive_expert"},)
    config.evaluate.timing.num_examples = 0
    workdir = str(tmp_path / "w")
    add, calls = quality.Kept.add, []

    def killed(self, tally, places):
        calls.append(len(places))
        if len(calls) == 2:
            raise KeyboardInterrupt
        add(self, tally, places)

    monkeypatch.setattr(quality.Kept, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(config, workdir)
    assert results.read(workdir) == []
    described = forecast.describe(prepared.prepare(config, weights=False), workdir)
    assert f"2 rows, {9 - calls[0]} answers of" in described
    assert evaluation.evaluate(config, workdir).failed == []
    first, lost, *others = calls
    assert first and lost and sum(others) == 9 - first
    [row, other] = [r for r in results.read(workdir) if r["kind"] == QUALITY]
    for made in (row, other):
        [whole] = [
            r
            for r in results.read(swept)
            if from_fields(r) == from_fields(made)
            and (r["kind"], r["split"]) == (QUALITY, made["split"])
        ]
        assert {**whole, "seconds": 0} == {**made, "seconds": 0}


def test_a_workdir_in_use_is_refused(exported, swept):
    with open(os.path.join(swept, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process works in"):
            evaluation.evaluate(tiny_pair.get_config(exported), swept)


@pytest.mark.skipif(sandbox._trouble() is not None, reason="no isolation here")
@pytest.mark.parametrize("chat", [False, True])
def test_rows_tell_in_which_form_code_was_asked_for(tmp_path, chat):
    tokenizer = text.load(makers.byte_level(tmp_path / "tokenizer"))
    built = {
        role: models.build({**tiny_pair.description(role), "vocab_size": tokenizer.vocab_size})
        for role in pairs.ROLES
    }
    params = {role: random_params.of(model) for role, model in built.items()}
    pair = pairs.Pair("p", built, params=params, tokenizer=tokenizer, context_length=900, chat=chat)
    pairs.export(pair, tmp_path / "pair", {})
    for split in ("train", "test"):
        rows = [numbered(ROWS["mbpp"], i) for i in range(2)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = tiny_pair.get_config(str(tmp_path / "pair"))
    config.task = ml_collections.ConfigDict({"name": "mbpp", "path": str(tmp_path), "shots": 1})
    config.evaluate.splits = ml_collections.ConfigDict({"test": 2})
    config.evaluate.settings = ({"method": "autoregressive_expert"},)
    config.evaluate.timing.num_examples = 0
    sweep = prepared.prepare(config)
    assert sweep.origin.common["task"] == (
        "mbpp_instruct" if chat else "mbpp"
    )  # goes into each row
    assert sweep.task.stop_strings == (() if chat else ("[DONE]",))


def test_nan_fails_a_setting_by_name_and_the_sweep_goes_on(exported, tmp_path, monkeypatch, capsys):
    pair = pairs.load(exported)
    broken = {**pair.params, "drafter": jax.tree.map(lambda x: x * np.nan, pair.params["drafter"])}
    pairs.export(dataclasses.replace(pair, params=broken), tmp_path / "pair", {})
    config = tiny_pair.get_config(str(tmp_path / "pair"))
    config.evaluate.settings = (
        {"rule": "token_v3", "alpha": 0.2, "draft_length": 2},
        {"method": "autoregressive_expert"},
    )
    outcome = evaluation.evaluate(config, str(tmp_path / "w"))
    assert outcome.measured == 4
    forced = [line for line in outcome.failed if line.startswith("teacher_forced of ")]
    assert len(forced) == 4 and all("examples met logits that were not finite" in f for f in forced)
    assert sorted(set(outcome.failed) - set(forced)) == [
        "quality of token_v3 alpha=0.2 N=2 token T=0 on test failed: 4 of 4 examples met logits "
        "that were not finite; look at the checkpoints and the dtype",
        "quality of token_v3 alpha=0.2 N=2 token T=0 on validation failed: 5 of 5 examples met "
        "logits that were not finite; look at the checkpoints and the dtype",
        "timing of token_v3 alpha=0.2 N=2 token T=0 on test failed: it met logits that were not "
        "finite; look at checkpoints and dtype",
        "timing of token_v3 alpha=0.2 N=2 token T=0 on validation failed: it met logits that were "
        "not finite; look at checkpoints and dtype",
    ]
    assert {row["method"] for row in results.read(tmp_path / "w")} == {"autoregressive_expert"}
    # A script ends with what failed, exit code 1. That is tried again; of another machine times are
    # taken anew.
    monkeypatch.setattr(provenance, "machine", lambda: "another")
    settings = f"--config.evaluate.settings={config.evaluate.settings}"
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        called.call(
            "scripts/evaluate.py", pair_of(tmp_path / "pair"), f"--workdir={tmp_path}/w", settings
        )
    assert ended.value.code == "\n".join(["error: 8 rows failed:", *outcome.failed])
    assert capsys.readouterr().out.startswith("2 rows measured")


def test_scores_are_the_tasks_scores_of_the_decoded_texts(exported, swept):
    config = tiny_pair.get_config(exported)
    sweep = prepared.prepare(config)
    chosen = setting({"method": "autoregressive_expert"})
    requests = sweep.prompts["validation"].requests
    batch = [*requests, *requests[:3]]  # of the size that the sweep compiled
    output = sweep.engine.prepare([chosen] * 8, batch, [chosen])()
    task = tasks.make(config.task)
    scores = [
        task.score(sweep.engine.text(tokens[:n]), example)
        for tokens, n, example in zip(
            np.asarray(output.tokens)[:5],
            np.asarray(output.num_tokens)[:5],
            task.examples("validation", 5),
            strict=True,
        )
    ]
    [row] = [
        row
        for row in results.read(swept)
        if (row["kind"], row["split"]) == (QUALITY, "validation") and from_fields(row) == chosen
    ]
    assert row["scores"] == scores
    assert row["tokens"] == np.sum(output.num_tokens[:5])


def test_answers_stand_side_by_side(swept):
    left, right = "autoregressive_expert T=0", "autoregressive_drafter T=0"
    text = compare_answers(swept, left, right, limit=1)
    head = text.split("\n")
    assert head[:2] == [f"left   {left}", f"right  {right}"]
    rows = {str(from_fields(r)): r for r in results.read(swept) if is_test(r, 4)}
    kept = [
        {a["id"]: a["text"] for a in answers.read(swept, rows[name[7:]]["answers"])}
        for name in head[:2]
    ]
    differ = [i for i in kept[0] if kept[0][i] != kept[1][i]]
    assert head[2].startswith(f"{len(differ)} of 4 answers of split test differ")
    assert differ and text.count("== example ") == 1
    with pytest.raises(UserError, match="'token_v3 T=0' is several settings .*alpha=0.2.*; token"):
        compare_answers(swept, left, "token_v3 T=0")
    with pytest.raises(UserError, match="'opt' is none of the settings that were measured: auto"):
        compare_answers(swept, "opt", right)


def test_workdirs_stand_in_one_table(swept, tmp_path):
    other = str(tmp_path / "other")
    shutil.copytree(swept, other)
    text, [path, _] = report_beside([swept, other])
    line = next(x for x in text.split("\n") if x.startswith("| autoregressive_expert |"))
    first, second, *_ = line.split(" | ")[1:]
    assert first == second and pathlib.Path(path).read_text() == text
    assert f"quality, {pathlib.Path(swept).name} | quality, other" in text
    with pytest.raises(UserError, match="is given twice"):
        report_beside([swept, swept])


def test_a_table_comes_out(swept):
    text, paths = report(swept)
    assert "| token_v3 | " in text and all(os.path.getsize(path) for path in paths)


def pair_of(exported):
    return f"--config={ROOT}/tests/tiny_pair.py:{exported}"


def start(exported, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "scripts/evaluate.py", pair_of(exported), *arguments],
        cwd=ROOT,
        # As many devices as here, so that it finds what was compiled.
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_run_goes_on_where_it_stopped(exported, swept, tmp_path):
    path = tmp_path / "w" / results.FILE
    process = start(exported, f"--workdir={tmp_path}/w")
    while process.poll() is None and not (path.exists() and path.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)  # it holds the workdir and adds nothing meanwhile
    kept = path.read_text()
    with pytest.raises(UserError, match="another process works in .*"):
        called.call("scripts/evaluate.py", pair_of(exported), f"--workdir={tmp_path}/w")
    assert path.read_text() == kept
    process.send_signal(signal.SIGKILL)
    process.communicate()
    rows = by_key(tmp_path / "w")
    assert 0 < len(rows) < 44 and rows.keys() <= by_key(swept).keys()
    outcome = evaluation.evaluate(tiny_pair.get_config(exported), str(tmp_path / "w"))
    assert outcome == evaluation.Outcome(measured=44 - len(rows), failed=[])
    assert path.read_text().startswith(kept)


@pytest.mark.slow
def test_killed_at_any_moment_all_is_there_once_in_the_end(exported, swept, tmp_path):
    path = tmp_path / "w" / results.FILE
    kept = b""
    for rows in (1, 10, 20, 36):  # two in batches, then on the references, then timed
        process = start(exported, f"--workdir={tmp_path}/w")
        while process.poll() is None and not (
            path.exists() and path.read_bytes().count(b"\n") >= rows
        ):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kept, before = path.read_bytes(), kept
        kept = kept[: kept.rindex(b"\n") + 1]
        assert kept.startswith(before) and kept.count(b"\n") >= rows
    last = start(exported, f"--workdir={tmp_path}/w")
    out, _ = last.communicate()
    left = 44 - kept.count(b"\n")
    assert last.returncode == 0 and out.startswith(f"{left} rows measured")
    assert path.read_bytes().startswith(kept)

    def made(workdir):
        rows = results.read(workdir)
        return sorted(str((r["kind"], r["split"], from_fields(r))) for r in rows)

    assert made(tmp_path / "w") == made(swept)


def test_a_full_disk_stops_the_run_with_the_rows_so_far(exported, swept, tmp_path):
    lines = (pathlib.Path(swept) / results.FILE).read_text().splitlines(keepends=True)
    workdir = tmp_path / "w"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond three rows and a half: the system writes half of the fourth.
    room = sum(map(len, lines[:3])) + len(lines[3]) // 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(UserError, match="cannot write to .*results.jsonl: File too large;"):
            evaluation.evaluate(tiny_pair.get_config(exported), str(workdir))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept = (workdir / results.FILE).read_text()
    assert [json.loads(line)["key"] for line in kept.splitlines()] == [
        json.loads(line)["key"] for line in lines[:3]
    ]
    # With room again it goes on.
    assert evaluation.evaluate(tiny_pair.get_config(exported), str(workdir)).measured == 44 - 3
    assert (workdir / results.FILE).read_text().startswith(kept)


def test_a_profile_is_written_beside_the_results(exported, swept):
    assert evaluation.evaluate(tiny_pair.get_config(exported), swept, profile=True).measured == 0
    assert list(pathlib.Path(swept).glob("profile/**/*.trace.json.gz"))


def test_scripts(exported, swept, tmp_path, capsys):
    called.call("scripts/evaluate.py", pair_of(exported), f"--workdir={tmp_path}/w", "--dry_run")
    dry = capsys.readouterr().out
    assert "8 settings on" in dry and "44 rows, 0 of them there already" in dry
    parts = r"\(quality [\d.]+, timing [\d.]+, compiling not counted\)"
    guess = r"the memory's speed \(a guess; --probe measures\)"
    line = rf"estimated cost: about [\d.]+ minutes {parts}, from {guess}\n"
    assert re.fullmatch(line, dry.splitlines(keepends=True)[-1])
    assert not (tmp_path / "w").exists()

    called.call("scripts/report.py", f"--workdir={swept}")
    assert "quality_latency.png" in capsys.readouterr().out
