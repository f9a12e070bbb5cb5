"""A kill between two timed examples loses neither of them."""

import os

import pytest

from speccascade import pairs
from speccascade.evaluate import results, run, timing, timing_parts
from speccascade.evaluate.jobs import TIMING
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
    one = 3 * 2  # answers of an example: the expert beside both settings, two trials
    with monkeypatch.context() as patch:
        count_answers(
            patch, until=3 + 2 * one + 1
        )  # three that compile, two examples, and one more
        with pytest.raises(Killed):
            run.evaluate(config, workdir)
    assert not [row for row in results.read(workdir) if row["kind"] == TIMING]
    parts = results.Results(workdir, file=timing_parts.FILE)
    assert [row["example"] for row in parts.rows.values()] == [0, 1]
    before = parts.rows["1"]["ms"]

    with monkeypatch.context() as patch:
        seen = count_answers(patch)
        assert run.evaluate(config, workdir).failed == []
    assert len(seen) == 3 + one and len(set(seen[3:])) == 1
    timed = [row for row in results.read(workdir) if row["kind"] == TIMING]
    assert len(timed) == 2 and all(len(row["ms"]) == 3 for row in timed)
    for row in timed:
        kept = [sum(trials) / 2 for trials in before]  # the median of two
        assert row["expert_ms"][1] == pytest.approx(kept[0], abs=1e-3)
        assert any(row["ms"][1] == pytest.approx(ms, abs=1e-3) for ms in kept[1:])
    assert not os.path.exists(os.path.join(workdir, timing_parts.FILE))


def test_parts_serve_a_group_whose_settings_are_all_among_theirs(tmp_path):
    store = results.Results(tmp_path, file=timing_parts.FILE)
    whole = timing_parts.Parts(store, ["a", "b"], str)
    whole.keep(4, timing_parts.Part([[1.0], [2.0], [3.0]], [5, 6, 7], [0, 0, 1]))
    own = timing_parts.Parts(store, ["b"], str)
    assert own.known == {4: timing_parts.Part([[1.0], [3.0]], [5, 7], [0, 1])}
    assert timing_parts.Parts(store, ["b", "c"], str).known == {}
    own.clear()
    assert timing_parts.Parts(store, ["b"], str).known == {}
