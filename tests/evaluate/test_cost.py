"""What a sweep costs, against closed forms; and a probe of a real pair."""

import json
import math

import pytest

from speccascade import pairs
from speccascade.evaluate import cost, evaluation, forecast, prepared, probe, timing_parts
from speccascade.evaluate.cost import Speed
from speccascade.evaluate.jobs import QUALITY, TIMING, plan
from speccascade.evaluate.progress import Progress
from speccascade.inference import methods
from speccascade.inference.reading import expand
from speccascade.inference.setting import Setting
from speccascade.inference.sweep import product
from speccascade.workdir import answers, results
from tests import tiny_pair

EXPERT, DRAFTER, SPECULATIVE = (
    method.name for method in (methods.EXPERT, methods.DRAFTER, methods.SPECULATIVE)
)

# Powers of two: each sum tells which of them went into it.
SPEEDS = {
    (QUALITY, EXPERT): Speed(1.0, 2.0**10),
    (QUALITY, DRAFTER): Speed(2.0, 2.0**11),
    (QUALITY, SPECULATIVE): Speed(4.0, 2.0**12),
    (TIMING, EXPERT): Speed(8.0, 2.0**13),
    (TIMING, DRAFTER): Speed(16.0, 2.0**14),
    (TIMING, SPECULATIVE): Speed(32.0, 2.0**15),
}
SECTION = {
    "splits": {"validation": 10, "test": 7},
    "timing": {"num_examples": 3, "trials": 2},
}


def jobs(*entries):
    return plan(expand(sum(entries, ())), SECTION)


def test_batches_are_shared_by_what_shares_a_program():
    # 17 answers of each of two alphas in batches of 4: 9 batches, not 2 times (3 + 2).
    found = jobs(product(rule="token_v3", alpha=(0.1, 0.3), draft_length=5))
    priced = cost.estimate(found, SPEEDS, batch_size=4)
    assert priced.quality_s == math.ceil(2 * 17 / 4) * 4.0
    # Two splits, 3 examples, 2 trials, of two settings and the expert.
    assert priced.timing_s == 2 * 3 * 2 * (2 * 32.0 + 8.0)
    # One program of batches; timed one more, and the expert.
    assert priced.compile_s == 2.0**12 + 2.0**15 + 2.0**13


def test_another_length_is_another_program():
    found = jobs(product(rule="spec", draft_length=(3, 5)))
    priced = cost.estimate(found, SPEEDS, batch_size=4)
    assert priced.quality_s == 2 * math.ceil(17 / 4) * 4.0
    assert priced.compile_s == 2 * 2.0**12 + 2 * 2.0**15 + 2.0**13


def test_the_expert_is_timed_beside_every_few_and_compiled_once():
    found = jobs(product(rule="token_v3", alpha=tuple(i / 20 for i in range(10)), draft_length=5))
    priced = cost.estimate(found, SPEEDS, batch_size=4)
    assert priced.timing_s == 2 * 3 * 2 * (10 * 32.0 + 2 * 8.0)  # ten are 8 and 2
    assert priced.compile_s == 2.0**12 + 2.0**15 + 2.0**13


def test_a_cascade_costs_at_most_both_models():
    found = jobs(product(method="sequence_cascade", threshold=-0.1))
    priced = cost.estimate(found, SPEEDS, batch_size=17)
    assert priced == (
        1.0 + 2.0,
        2 * 3 * 2 * (8.0 + 16.0 + 8.0),
        2.0**10 + 2.0**11 + 2.0**14 + 2 * 2.0**13,
    )


def test_what_is_needed():
    assert set(cost.needed(jobs(product(rule="spec", draft_length=2)))) == {
        (QUALITY, SPECULATIVE),
        (TIMING, SPECULATIVE),
        (TIMING, EXPERT),
    }
    cascades = jobs(product(method="token_cascade", rule="chow", alpha=0.1))
    assert set(cost.needed(cascades)) == {
        (k, m) for k in (QUALITY, TIMING) for m in (EXPERT, DRAFTER)
    }
    assert cost.needed([]) == [] and cost.estimate([], {}, 4) == (0, 0, 0)


def test_as_text():
    assert str(cost.Cost(60.0, 90.0, 6.0)) == (
        "about 2.6 minutes (quality 1.0, timing 1.5, compiling 0.1)"
    )
    assert str(cost.Cost(60.0, 90.0, None)) == (
        "about 2.5 minutes (quality 1.0, timing 1.5, compiling not counted)"
    )
    assert str(cost.Cost(360_000.0, 0.0, 0.0)).startswith("about 6,000.0 minutes = 100.0 hours (")


def test_speeds_of_rows():
    rows = [
        {"kind": QUALITY, "method": SPECULATIVE, "seconds": s, "num_examples": 5}
        for s in (50.0, 10.0, 10.0)  # the first has its compiling in it
    ]
    rows.append({"kind": TIMING, "method": SPECULATIVE, "ms": [100.0, 300.0], "expert_ms": [700.0]})
    assert cost.from_rows(rows, batch_size=4) == {
        (QUALITY, SPECULATIVE): 8.0,
        (TIMING, SPECULATIVE): 0.2,
        (TIMING, EXPERT): 0.7,
    }


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("pair"))
    pairs.export(tiny_pair.make(), directory, {})
    return prepared.prepare(tiny_pair.get_config(directory))


@pytest.mark.slow
def test_a_probe_has_all_that_is_needed_and_repeats_nothing_known(sweep):
    known = {(QUALITY, EXPERT): 123.0}
    speeds = probe.measure(sweep.engine, sweep.prompts, sweep.jobs, 8, known)
    assert set(speeds) == set(cost.needed(sweep.jobs))
    assert speeds[QUALITY, EXPERT] == Speed(123.0, 0.0)
    assert all(speed.batch_s > 0 and speed.compile_s >= 0 for speed in speeds.values())
    again = probe.measure(sweep.engine, sweep.prompts, sweep.jobs, 8, known)
    # The second time all is there already.
    compiled = [sum(speed.compile_s for speed in found.values()) for found in (speeds, again)]
    assert compiled[1] < compiled[0] / 2


@pytest.mark.slow
def test_the_bar_is_full_when_all_is_done(sweep, tmp_path):
    parts = results.Results(tmp_path, file=timing_parts.FILE)
    left = [job for job in sweep.jobs if job.split == "test"]
    with Progress(left, SPEEDS, 8, shown=True) as progress:
        made = evaluation._measure(sweep, left, progress, parts, answers.Answers(str(tmp_path)))
        assert len(list(made)) == len(left)
        assert progress._bar.total == sum(cost.estimate(left, SPEEDS, 8))
        assert progress._bar.n == pytest.approx(progress._bar.total)


def test_what_an_earlier_start_has_timed_is_not_left_to_do(sweep):
    left = [job for job in sweep.jobs if job.kind == TIMING and job.split == "test"]
    with Progress(left, SPEEDS, 8, shown=True) as progress:
        whole = progress._bar.total
        for group in cost.groups(left):
            progress.starts(group)
            for setting in (Setting(methods.EXPERT), *(job.setting for job in group)):
                progress.compiled(setting)
            half = cost.answers(group) // 2
            progress.kept(half)
            progress.answered(cost.answers(group) - half)
        timed = sum(cost.decoding_seconds(group, SPEEDS, 8) for group in cost.groups(left))
        assert progress._bar.total == pytest.approx(whole - timed / 2)
        assert progress._bar.n == pytest.approx(progress._bar.total)
        assert progress._answers[0] == progress._answers[1] == cost.answers(left) / 2


def test_more_than_a_day_is_said_to_be_much_and_rows_count(sweep, tmp_path):
    """The workdir's rows say that each answer takes an hour."""
    hour = {"num_examples": 1, "seconds": 3600.0, "ms": [3.6e6], "expert_ms": [3.6e6]}
    rows = [
        {
            "key": f"{kind} {m}",
            "kind": kind,
            "method": m,
            "pair": sweep.origin.common["pair"],
            **hour,
        }
        for kind in (QUALITY, TIMING)
        for m in (EXPERT, DRAFTER, SPECULATIVE)
    ]
    (tmp_path / results.FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Of 8 settings on 5 + 4 examples, 2 of the expert, 2 of the drafter, 4 speculative in batches
    # of 8; and 2 trials of 2 examples of each on 2 splits, beside the expert at 2 temperatures.
    batches = math.ceil(2 * 9 / 8) * 2 + math.ceil(4 * 9 / 8)
    timed = 2 * 2 * 2 * (8 + 2)
    assert forecast.describe(sweep, str(tmp_path)).split("\n")[-1] == (
        f"estimated cost: about {60 * (8 * batches + timed):,.1f} minutes = "
        f"{8 * batches + timed:,.1f} hours (quality {60 * 8 * batches:,.1f}, timing "
        f"{60 * timed:,.1f}, compiling not counted), from the rows so far; for less, "
        "lower evaluate.splits, evaluate.timing or evaluate.settings"
    )
