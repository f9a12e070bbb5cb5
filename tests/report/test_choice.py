import pytest

from speccascade.errors import UserError
from speccascade.inference.reading import setting
from speccascade.report.choice import BEST, FASTEST, choose, complete_temperatures
from speccascade.report.points import MARK, collect
from tests.report.synthetic import DRAFTER, EXPERT, quality, speculative, sweep

HALF = [1.0, 0.0] * 20  # 40 examples
MORE = [1.0, 0.0] * 15 + [1.0] * 10
LESS = [1.0, 0.0] * 15 + [0.0] * 10
SLIGHTLY_MORE = [1.0, 0.0] * 19 + [1.0] * 2
SLIGHTLY_LESS = [1.0, 0.0] * 19 + [0.0] * 2
NONE = [0.0] * 40


def chosen(criterion, *points, temperature=0.0):
    rows, config = sweep((EXPERT, HALF, HALF, 1.0), *points)
    choices = choose(collect(rows, config, "COMMAND"), temperature, criterion)
    return {choice.label: choice for choice in choices}


def knob(choice):
    return dict(choice.setting.knobs)["alpha"]


def v3(alpha, **fields):
    return speculative("token_v3", alpha=alpha, **fields)


def test_fastest_is_the_largest_speedup_that_keeps_the_quality_on_validation():
    found = chosen(
        FASTEST,
        (v3(0.1), MORE, HALF, 0.8),
        (v3(0.3), HALF, LESS, 0.5),  # as good as the expert there, and the fastest such
        (v3(0.5), SLIGHTLY_LESS, MORE, 0.4),  # would be best on test, which nobody may look at
    )["token_v3"]
    assert knob(found) == 0.3
    assert found.test.speedup == pytest.approx(2.0)
    assert found.speed_verdict == "faster"
    assert found.difference == pytest.approx(-5 / 40)
    assert found.quality_verdict == "worse"
    low, high = found.difference_interval
    assert low < -5 / 40 < high < 0


def test_best_is_the_highest_quality_within_the_latency_on_validation():
    found = chosen(
        BEST,
        (v3(0.1), MORE, MORE, 1.2),  # slower than the expert
        (v3(0.3), SLIGHTLY_MORE, MORE, 0.9),
        (v3(0.4), SLIGHTLY_MORE, HALF, 0.7),  # as good, and faster
        (v3(0.5), LESS, LESS, 0.4),
    )["token_v3"]
    assert knob(found) == 0.4
    assert found.quality_verdict == "not told apart" and found.difference == 0.0


def test_not_told_apart_where_the_interval_holds_zero():
    slight = chosen(FASTEST, (v3(0.3), HALF, SLIGHTLY_MORE, 1.0))["token_v3"]
    assert slight.difference > 0 and slight.difference_interval[0] == 0.0
    assert slight.quality_verdict == "not told apart"
    assert slight.speed_verdict == "not told apart"
    clear = chosen(FASTEST, (v3(0.3), HALF, MORE, 1.2))["token_v3"]
    assert clear.quality_verdict == "better" and clear.speed_verdict == "slower"


def test_draft_length_and_verifier_are_chosen_too():
    found = chosen(
        FASTEST,
        (v3(0.3, draft_length=3), HALF, HALF, 0.8),
        (v3(0.3, draft_length=5), HALF, HALF, 0.7),
        (v3(0.3, draft_length=5, verifier="block"), HALF, HALF, 0.6),
    )["token_v3"]
    assert (found.setting.draft_length, found.setting.verifier) == (5, "block")
    assert found.test.rates["rejection_rate"] is None


def test_a_choice_can_be_confined_to_a_draft_length():
    rows, config = sweep(
        (EXPERT, HALF, HALF, 1.0),
        (v3(0.3, draft_length=3), HALF, HALF, 0.8),
        (v3(0.3, draft_length=5), HALF, HALF, 0.7),
        (speculative("spec", draft_length=5), HALF, HALF, 0.7),
    )
    points = collect(rows, config, "COMMAND")
    [three] = choose(points, 0.0, FASTEST, draft_length=3)
    assert three.setting.draft_length == 3 and three.label == "token_v3"
    found = choose(points, 0.0, FASTEST, draft_length=5)
    assert [c.setting.draft_length for c in found] == [5, 5]


def test_none_is_chosen_where_none_is_admitted():
    found = chosen(FASTEST, (DRAFTER, NONE, NONE, 0.2), (v3(0.5), LESS, LESS, 0.5))
    assert found["autoregressive_drafter"].setting is None
    assert found["token_v3"].setting is None and found["token_v3"].quality_verdict is None
    assert found["autoregressive_expert"].setting is not None


def test_what_follows_the_experts_law_needs_no_luck_on_validation():
    found = chosen(
        FASTEST,
        (speculative("spec"), SLIGHTLY_LESS, HALF, 0.7),
        (speculative("spec", expert_top_p=0.5), SLIGHTLY_LESS, HALF, 0.7),
        (v3(0.0), SLIGHTLY_LESS, HALF, 0.7),
        (speculative("lossy", alpha=0.0), SLIGHTLY_LESS, HALF, 0.7),
        (speculative("lossy", alpha=0.5), SLIGHTLY_LESS, HALF, 0.6),
    )
    assert found["spec"].setting is not None
    assert found["spec, expert top_p"].setting is None
    assert found["token_v3"].setting is None
    assert knob(found["lossy"]) == 0.0


def test_the_expert_is_within_its_own_latency_whatever_its_timing_says():
    rows, config = sweep((EXPERT, HALF, HALF, 1.01))
    points = collect(rows, config, "COMMAND")
    [found] = choose(points, 0.0, BEST)
    assert found.setting is not None
    assert found.speed_verdict is None and found.quality_verdict is None  # nothing to tell apart


def test_temperatures_are_compared_with_the_expert_at_the_same_one():
    warm = {**EXPERT, "temperature": 1.0}
    rows, config = sweep(
        (EXPERT, HALF, HALF, 1.0),
        (warm, LESS, LESS, 1.0),
        (v3(0.3, temperature=1.0), SLIGHTLY_LESS, SLIGHTLY_LESS, 0.5),
        (v3(0.3, temperature=0.5), HALF, HALF, 0.5),  # no expert there
    )
    points = collect(rows, config, "COMMAND")
    assert complete_temperatures(points) == [0.0, 1.0]
    [_, found] = choose(points, 1.0, FASTEST)
    assert found.difference == pytest.approx(4 / 40)


def test_untimed_settings_are_not_chosen():
    assert chosen(FASTEST, (v3(0.3), HALF, HALF, None))["token_v3"].setting is None


def test_seeds_are_pooled():
    rows, config = sweep(
        (EXPERT, HALF, HALF, 1.0),
        (v3(0.3), HALF, MORE, 0.5),
        (v3(0.3, seed=1), MORE, HALF, None),
    )
    points = collect(rows, config, "COMMAND")
    assert len(points.settings()) == 2
    [_, found] = choose(points, 0.0, FASTEST)
    assert found.validation.quality == pytest.approx(22.5 / 40)
    assert found.difference == pytest.approx(2.5 / 40)


def test_rows_of_other_pairs_or_machines_are_never_mixed_in():
    rows, config = sweep((EXPERT, HALF, HALF, 1.0), (v3(0.3), HALF, HALF, 0.5))
    old = [quality(v3(0.3), split, NONE, pair="older") for split in ("validation", "test")]
    other = [quality(v3(0.3), "test", NONE, examples="other")]
    rows = [{**row, "examples": "these"} for row in rows]
    slow = [
        {**row, "machine": "m1", "speedup": 9.0}
        for row in rows
        if row["kind"] == "timing" and row["method"] == "speculative"
    ]
    points = collect(old + other + slow + rows, config, "COMMAND")
    [_, found] = choose(points, 0.0, FASTEST)
    assert found.test.speedup == pytest.approx(2.0) and found.difference == 0.0
    assert points.notes == [
        "5 older rows of another checkpoint, of other examples or of another machine are left out"
    ]


def test_rows_of_another_edition_are_marked_where_there_is_no_newer_one():
    rows, config = sweep(
        (EXPERT, HALF, HALF, 1.0), (v3(0.3), HALF, HALF, 0.5), (v3(0.5), HALF, HALF, 0.5)
    )
    splits = ("validation", "test")
    old = [quality(v3(a), s, NONE, decoding="0") for a in (0.3, 0.5) for s in splits]

    def is_lost(row):  # that setting's answers were never decoded again
        return row["kind"] == "quality" and row["knobs"] == {"alpha": 0.5}

    kept = [row for row in rows if not is_lost(row)]
    points = collect(old + kept, config, "COMMAND")
    by_alpha = {dict(p.setting.knobs).get("alpha"): p for p in points.by_setting.values()}
    assert by_alpha[0.3].quality == 0.5 and by_alpha[0.5].quality == 0.0
    [marked] = points.marked
    assert dict(marked.knobs) == {"alpha": 0.5}
    assert points.mark(marked, "name") == f"name {MARK}"
    assert points.mark(setting(EXPERT), "name") == "name"
    [note] = points.notes
    assert note.startswith(f"{MARK} 2 rows were measured by another edition")
    points = collect(old + kept, config, "COMMAND", only_newest=True)
    assert not points.marked and marked not in points.settings()
    assert points.notes == [
        "2 rows of another edition are left out",
        "2 of 18 rows are missing; to add them run COMMAND",
    ]


def test_settings_that_left_the_grid_are_not_in_the_tables():
    rows, config = sweep((EXPERT, HALF, HALF, 1.0), (v3(0.3), HALF, HALF, 0.5))
    config["evaluate"]["settings"] = [EXPERT]
    points = collect(rows, config, "COMMAND")
    assert points.settings() == [setting(EXPERT)] and not points.forced and not points.notes


def test_missing_rows_become_a_note_with_the_command():
    rows, config = sweep((EXPERT, HALF, HALF, 1.0), (v3(0.3), HALF, HALF, 0.5))
    points = collect(rows[:-1], config, "COMMAND")
    assert points.notes == ["1 of 12 rows are missing; to add them run COMMAND"]
    with pytest.raises(UserError, match="no results yet; run COMMAND"):
        collect([], config, "COMMAND")


def test_a_corpus_score_is_that_of_the_examples_drawn():
    # Ten words of ten: each method has the same matches in every answer, the expert half of them.
    found = [10.0, 9.0, 8.0, 7.0]
    right = [10.0, 10.0, *found, *found]
    half = [10.0, 10.0, 5.0, 4.0, 3.0, 2.0, *found]
    rows, config = sweep((EXPERT, HALF, HALF, 1.0), (v3(0.1), MORE, MORE, 0.8))
    for row in rows:
        if "scores" in row:
            row["aggregate"] = "bleu"
            row["scores"] = [half if row["method"] == "autoregressive_expert" else right] * 40
    choices = choose(collect(rows, config, "COMMAND"), 0.0, FASTEST)
    expert, cascade = choices
    wanted = 100 * (5 / 10 * 4 / 9 * 3 / 8 * 2 / 7) ** 0.25
    assert expert.test.quality == pytest.approx(wanted)
    assert expert.test.interval == pytest.approx((wanted, wanted))
    assert cascade.test.quality == pytest.approx(100.0)
    assert cascade.difference == pytest.approx(100 - wanted)
    assert cascade.quality_verdict == "better" and expert.quality_verdict is None
