"""A kill between two timed examples loses neither of them."""

import os

import pytest

from speccascade import pairs
from speccascade.evaluate import evaluation, timing, timing_parts
from speccascade.evaluate.jobs import TIMING, Job
from speccascade.inference.reading import setting
from speccascade.workdir import results
from tests import tiny_pair


@pytest.fixture
def config(tmp_path):
    pairs.export(tiny_pair.make(), tmp_path / "pair", {})
    config = tiny_pair.get_config(str(tmp_path / "pair"))
    config.evaluate.settings = (
        {"method": "autoregressive_expert"},
        {"rule": "spec", "draft_length": 2},
    )
    config.evaluate.splits = {"validation": 3}
    config.evaluate.timing = {"num_examples": 3, "trials": 2}
    return config


class Killed(BaseException):
    pass


def count_answers(monkeypatch, until=None):
    """Notes the prompt of each timed answer, and kills the process at one of them."""
    seen = []
    own = timing._answer

    def answer(engine, setting, request):
        seen.append(tuple(request.prompt))
        if len(seen) == until:
            raise Killed
        return own(engine, setting, request)

    monkeypatch.setattr(timing, "_answer", answer)
    return seen


def test_timed_examples_outlive_the_process(config, tmp_path, monkeypatch):
    workdir = str(tmp_path / "w")
    # Answers of an example: the expert beside both settings, two trials, whole and to one token.
    one = 3 * 2 * 2
    with monkeypatch.context() as patch:
        count_answers(
            patch, until=3 + 2 * one + 1
        )  # three that compile, two examples, and one more
        with pytest.raises(Killed):
            evaluation.evaluate(config, workdir)
    assert not [row for row in results.read(workdir) if row["kind"] == TIMING]
    parts = results.Results(workdir, file=timing_parts.FILE)
    assert [row["example"] for row in parts.rows.values()] == [0, 1]
    before = list(parts.rows.values())[1]["ms"]

    with monkeypatch.context() as patch:
        seen = count_answers(patch)
        assert evaluation.evaluate(config, workdir).failed == []
    assert len(seen) == 3 + one and len(set(seen[3:])) == 1
    timed = [row for row in results.read(workdir) if row["kind"] == TIMING]
    assert len(timed) == 2 and all(len(row["ms"]) == 3 for row in timed)
    for row in timed:
        kept = [sum(trials) / 2 for trials in before]  # the median of two
        assert row["expert_ms"][1] == pytest.approx(kept[0], abs=1e-3)
        assert any(row["ms"][1] == pytest.approx(ms, abs=1e-3) for ms in kept[1:])
    assert not os.path.exists(os.path.join(workdir, timing_parts.FILE))


@pytest.mark.slow
def test_a_group_whose_settings_fail_again_takes_nothing_from_another(
    config, tmp_path, monkeypatch
):
    """Of two groups, one setting of the first fails each time; the second is killed in between."""
    warm = {"rule": "spec", "temperature": 1.0}
    config.evaluate.settings = (
        {"method": "autoregressive_expert"},
        {"rule": "spec", "draft_length": 2},
        {**warm, "draft_length": 2},
        {**warm, "draft_length": 3},
    )
    config.evaluate.timing.trials = 1
    monkeypatch.setattr(timing, "TOGETHER", 2)
    workdir = str(tmp_path / "w")
    own = timing._answer
    seen = []

    def answer(engine, setting, request):
        seen.append(setting.temperature)
        if len(seen) == state["until"]:
            raise Killed
        ms, tokens, invalid = own(engine, setting, request)
        return ms, tokens, invalid or (setting.rule == "spec" and setting.temperature == 0)

    monkeypatch.setattr(timing, "_answer", answer)
    # The first group: three that compile and three examples of three, twice; the second: the same,
    # cut.
    state = {"until": 3 + 2 * 9 + 3 + 2 * 2 * 3 + 1}
    with pytest.raises(Killed):
        evaluation.evaluate(config, workdir)
    seen.clear()
    state["until"] = None
    assert len(evaluation.evaluate(config, workdir).failed) == 1
    # What failed is timed again, three examples beside the expert; of the second group one is left.
    assert seen.count(0.0) == 2 + 2 * 3 * 2 and seen.count(1.0) == 3 + 2 * 3
    assert not os.path.exists(os.path.join(workdir, timing_parts.FILE))


def test_parts_serve_a_group_whose_settings_are_all_among_theirs(tmp_path):
    store = results.Results(tmp_path, file=timing_parts.FILE)
    whole = timing_parts.Parts(store, ["a", "b"], str)
    columns = [[1.0], [2.0], [3.0]], [5, 6, 7], list("xyz"), [0, 0, 1], [[0.1], [0.2], [0.3]]
    whole.keep(4, timing_parts.Part(*columns))
    own = timing_parts.Parts(store, ["b"], str)
    assert own.known == {4: timing_parts.Part(*([c[0], c[2]] for c in columns))}
    assert timing_parts.Parts(store, ["b", "c"], str).known == {}
    own.clear()
    assert timing_parts.Parts(store, ["b"], str).known == {}


def test_groups_stay_together_when_others_are_done():
    jobs = [
        Job(TIMING, setting({"rule": "spec", "draft_length": n}), "test", 3, 1)
        for n in range(1, 20)
    ]
    whole = timing.groups(jobs)
    assert [len(group) for group in whole] == [8, 8, 3]
    gone = whole[0][:3]
    left = timing.groups([job for job in jobs if job not in gone], jobs)
    assert left == [whole[0][3:], *whole[1:]]
