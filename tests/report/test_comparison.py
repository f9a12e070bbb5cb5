import dataclasses

import numpy as np
import pytest

from speccascade.inference.reading import setting
from speccascade.report import verdicts
from speccascade.report.choice import BEST, choose
from speccascade.report.comparison import against_lossless, compare, lossless, matched
from speccascade.report.points import collect
from tests.report.synthetic import EXPERT, speculative, sweep

HALF = [1.0, 0.0] * 20
MORE = [1.0, 0.0] * 15 + [1.0] * 10
LESS = [1.0, 0.0] * 15 + [0.0] * 10
WARM = {"temperature": 1.0}


def measured(*points):
    rows, config = sweep(({**EXPERT, **WARM}, HALF, HALF, 1.0), *points)
    return collect(rows, config, "COMMAND")


def warm(rule, draft_length=3, **fields):
    return speculative(rule, draft_length, **WARM, **fields)


def test_a_comparison_is_paired_in_quality_and_speed():
    points = measured(
        (warm("spec"), HALF, HALF, 0.8), (warm("token_v3", alpha=0.3), HALF, MORE, 0.4)
    )
    ours, rival = (
        points.of(setting(entry), "test") for entry in (warm("token_v3", alpha=0.3), warm("spec"))
    )
    found = compare("a question", ours, rival)
    assert found.difference == pytest.approx(5 / 40) and found.quality_verdict == "better"
    assert found.ratio == pytest.approx(2.0) and found.speed_verdict == "faster"
    assert found.ratio_interval == pytest.approx((2.0, 2.0))  # every example twice as fast
    assert "quality better (n = 40), +0.125 [" in str(found)
    assert "speed faster (n = 2), 2.00 [2.00, 2.00] times" in str(found)
    back = compare("a question", rival, ours)
    assert back.quality_verdict == "worse" and back.ratio == pytest.approx(0.5)
    same = compare("a question", rival, rival)
    assert "not told apart at this sample size (n = 40), +0.000" in str(same)


def test_the_speed_ratio_cancels_what_the_machine_did_meanwhile():
    points = measured((warm("spec"), HALF, HALF, 0.8), (warm("lossy", alpha=0.3), HALF, HALF, 0.4))
    ours = points.of(setting(warm("lossy", alpha=0.3)), "test")
    rival = points.of(setting(warm("spec")), "test")
    slow = np.array([3.0, 5.0])  # all that was timed beside `ours` took so much longer
    timing = dataclasses.replace(
        ours.timing, ms=ours.timing.ms * slow, expert_ms=ours.timing.expert_ms * slow
    )
    found = compare("a question", dataclasses.replace(ours, timing=timing), rival)
    assert found.ratio == pytest.approx(2.0)
    untimed = compare("a question", dataclasses.replace(ours, timing=None), rival)
    assert untimed.ratio is None and "speed was not measured" in str(untimed)


def test_lossless_decoding_of_the_same_draft_length_or_the_fastest():
    points = measured(
        (warm("spec", 3), HALF, HALF, 0.8),
        (warm("spec", 5), HALF, HALF, 0.6),
        (warm("spec", 5, expert_top_p=0.5), HALF, HALF, 0.1),  # not lossless
        (speculative("spec", 9), HALF, HALF, 0.1),  # at another temperature
        (warm("token_v3", 3, alpha=0.3), HALF, HALF, 0.7),
        (warm("token_v3", 7, alpha=0.3), HALF, HALF, 0.5),
    )

    def of(entry):
        return lossless(points, setting(entry)).draft_length

    assert of(warm("token_v3", 3, alpha=0.3)) == 3
    assert of(warm("token_v3", 7, alpha=0.3)) == 5
    assert of(warm("token_v3", 3, alpha=0.3, verifier="block")) == 5
    assert lossless(points, setting(speculative("spec", 9, temperature=0.5))) is None
    found = against_lossless(points, choose(points, 1.0, BEST))
    assert [(c.ours.setting.label, c.rival.setting.draft_length) for c in found] == [
        ("autoregressive_expert", 5),
        ("spec, expert top_p", 5),
        ("token_v3", 5),
    ]


def test_matched_by_what_validation_says():
    points = measured(
        (warm("lossy", alpha=0.5), HALF, HALF, 0.6),
        (warm("token_v3", alpha=0.1), MORE, MORE, 0.9),  # good, and slower than the rival
        (warm("token_v3", alpha=0.3), HALF, LESS, 0.5),  # as good there, and faster
        (warm("token_v3", alpha=0.5), LESS, MORE, 0.2),  # fastest, and worse on validation
    )
    found, impossible = matched(points, 1.0, "token_v3", ["lossy"])
    assert not impossible and [dict(c.ours.setting.knobs)["alpha"] for c in found] == [0.3, 0.3]
    by_latency, by_quality = found
    assert by_latency.question.endswith("latency") and by_latency.quality_verdict == "worse"
    assert by_quality.question.endswith("quality") and by_quality.speed_verdict == "faster"


def test_what_cannot_be_matched_is_said():
    points = measured(
        (warm("lossy", alpha=0.5), MORE, HALF, 0.6), (warm("token_v3", alpha=0.1), HALF, HALF, 0.9)
    )
    found, impossible = matched(points, 1.0, "token_v3", ["lossy"])
    assert not found and len(impossible) == 2
    answers, lines, made = verdicts.question_section(points)
    assert made == [] and any("no setting of token_v3 stands" in line for line in lines)
    assert "in 2 more none of its settings is as fast, or as good" in answers[1]


def test_a_rival_that_no_criterion_admits():
    points = measured(
        (warm("lossy", alpha=0.5), LESS, LESS, 1.5),  # slower than the expert, and worse
        (warm("token_v3", alpha=0.3), HALF, HALF, 0.4),
    )
    answers, _, made = verdicts.question_section(points)
    assert not made and answers[1].endswith(
        "temperature 1: no comparison, since neither criterion admits a setting of that rival."
    )


def test_the_question_is_answered_per_group_of_rivals():
    points = measured(
        (warm("spec"), HALF, HALF, 0.8),
        (warm("spec", expert_top_p=0.5), HALF, LESS, 0.5),
        (warm("token_v3", alpha=0.3), HALF, HALF, 0.4),
    )
    answers, _, made = verdicts.question_section(points)
    assert answers == [
        "- token_v3 and lossless speculative decoding, temperature 1: at matched latency better "
        "in 0, worse in 0, not told apart in 1 of 1 comparisons; at matched quality faster in 1, "
        "slower in 0, not told apart in 0 of 1 comparisons.",
        "- token_v3 and lossy speculative decoding, temperature 1: not measured.",
        "- token_v3 and the truncated expert, temperature 1: at matched latency better in 1, worse "
        "in 0, not told apart in 0 of 1 comparisons; at matched quality faster in 1, slower in 0, "
        "not told apart in 0 of 1 comparisons.",
    ]
    records = [verdicts.record(c) for c in made]
    assert {r["against"] for r in records} == {"spec", "spec, expert top_p"}
    assert all(r["num_timed"] == 2 and r["num_examples"] == 40 for r in records)


def test_greedy_rivals_are_lossless_decoding_itself():
    rows, config = sweep(
        (EXPERT, HALF, HALF, 1.0),
        (speculative("spec"), HALF, HALF, 0.8),
        (speculative("token_v3", alpha=0.3), HALF, HALF, 0.4),
    )
    answers, _, _ = verdicts.question_section(collect(rows, config, "COMMAND"))
    assert len(answers) == 3
    assert all(answer.endswith("lossless speculative decoding.") for answer in answers[1:])
