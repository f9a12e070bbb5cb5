import numpy as np
import pytest

from speccascade.errors import UserError
from speccascade.inference.reading import setting
from speccascade.report.points import collect
from speccascade.tuning import summary
from speccascade.tuning.choice import MaxQualityLoss, MinSpeedUp, decide
from tests.report.synthetic import DRAFTER, EXPERT, quality, speculative, timing

SIZE = 300
RIGHT = [1.0] * 240 + [0.0] * 60


def wrong(count):
    """Scores that lose `count` of the expert's right answers."""
    return [0.0] * count + RIGHT[count:]


def points_of(split, *points):
    """Points of (entry, scores, speed-up); times differ from example to example by a tenth."""
    rows, noise = [], np.tile([0.95, 1.05], 4)
    for entry, scores, speed in points:
        rows.append(quality(entry, split, scores))
        if speed is not None:
            ms = (100 / speed * noise).tolist()
            rows.append(timing(entry, split, ms, [100.0] * 8))
    config = {
        "evaluate": {
            "settings": [entry for entry, _, _ in points],
            "splits": {split: SIZE},
            "timing": {"num_examples": 8, "trials": 3},
        }
    }
    return collect(rows, config, "COMMAND")


SPEC = (speculative("spec"), wrong(2), 1.4)  # its law is the expert's, whatever was measured


def v3(alpha, **fields):
    return speculative("token_v3", alpha=alpha, **fields)


def decided(promise, *points, confidence=0.95):
    return decide(points_of("validation", (EXPERT, RIGHT, 0.9), *points), 0.0, promise, confidence)


LOSS = MaxQualityLoss(0.05, 1.0)


def test_the_fastest_that_is_certified_is_chosen():
    found = decided(
        LOSS,
        SPEC,
        (v3(0.2), wrong(0), 1.5),
        (v3(0.4), wrong(1), 1.7),
        (v3(0.6), wrong(12), 1.9),  # 0.04, which is below 0.05, and not for certain
        (v3(0.8), wrong(0), 2.5),  # its turn does not come
        (DRAFTER, [0.0] * SIZE, 5.0),
    )
    assert (str(found.chosen), found.basis) == ("token_v3 alpha=0.4 N=3 token T=0", "certified")
    by_alpha = [(h.tested, h.certified) for h in found.hypotheses][:4]
    assert by_alpha == [(True, True), (True, True), (True, False), (False, False)]
    assert found.hypotheses[1].estimate == pytest.approx(1 / SIZE)
    assert found.hypotheses[1].bound < 0.05 < found.hypotheses[2].bound
    assert found.nearest == found.hypotheses[2]
    assert SIZE < found.nearest.wanted < 100 * SIZE


def test_of_one_law_the_fastest_block_is_taken_and_all_scores_count():
    found = decided(
        LOSS,
        SPEC,
        (v3(0.4), wrong(0), 1.5),
        (v3(0.4, draft_length=5), wrong(2), 2.0),
        (v3(0.4, draft_length=7, verifier="block"), wrong(4), 1.8),
    )
    assert found.chosen.draft_length == 5
    [hypothesis] = found.hypotheses
    assert len(hypothesis.settings) == 3 and hypothesis.estimate == pytest.approx(2 / SIZE)


def test_lossless_decoding_needs_no_test_and_is_what_is_left():
    found = decided(LOSS, SPEC, (v3(0.4), wrong(30), 3.0), (v3(0.2), wrong(20), 2.0))
    assert (found.chosen.rule, found.basis) == ("spec", "law")
    assert found.lossless == found.chosen
    assert found.nearest.wanted is None  # its estimate breaks the promise
    slow = decided(LOSS, (speculative("spec"), RIGHT, 0.8), (v3(0.4), wrong(30), 3.0))
    assert slow.chosen.method.alone == "expert"


@pytest.mark.parametrize("promise", [LOSS, MinSpeedUp(1.0), MinSpeedUp(1.3)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_chosen_is_never_slower_than_the_expert_alone(promise, seed):
    """N = 0 is always a choice: where no block pays, nothing is drafted."""
    rng = np.random.default_rng(seed)
    for fastest in (0.95, 1.6):
        entries = [speculative("spec"), v3(0.2), v3(0.4), v3(0.4, draft_length=5)]
        speeds = dict(zip(map(str, entries), rng.uniform(0.4, fastest, len(entries)), strict=True))
        points = [(entry, wrong(int(rng.integers(3))), speeds[str(entry)]) for entry in entries]
        found = decided(promise, *points)
        if fastest < 1:
            assert found.chosen.method.alone == "expert"
        for (entry, _, speed) in points:
            if setting(entry) == found.chosen:
                assert speed >= 1


def test_more_candidates_need_more_evidence():
    candidate = (v3(0.4), wrong(4), 2.0)
    others = [(speculative("chow", alpha=0.5, draft_length=n), [0.0] * SIZE, 1.0) for n in (1, 2)]
    others += [
        (speculative(r, alpha=0.5), [0.0] * SIZE, 1.0) for r in ("diff", "chowlog", "mixture")
    ]
    few, many = decided(LOSS, candidate), decided(LOSS, candidate, *others)
    assert few.hypotheses[0].level == pytest.approx(0.05)
    assert many.hypotheses[0].level == pytest.approx(0.05 / 5)  # one law of two draft lengths
    assert few.hypotheses[0].bound < many.hypotheses[0].bound


def test_the_best_of_those_that_are_certainly_fast_enough_is_chosen():
    found = decided(
        MinSpeedUp(1.5),
        SPEC,
        (v3(0.2), wrong(0), 1.51),  # fast enough, and not for certain
        (v3(0.4), wrong(3), 1.8),
        (v3(0.6), wrong(3), 2.0),
        (v3(0.8), wrong(30), 3.0),
    )
    assert (dict(found.chosen.knobs), found.basis) == ({"alpha": 0.6}, "certified")
    order = [dict(h.settings[0].knobs)["alpha"] for h in found.hypotheses if h.settings[0].knobs]
    assert order == [0.8, 0.6, 0.4, 0.2]
    none = decided(MinSpeedUp(4.0), SPEC, (v3(0.4), RIGHT, 3.0))
    assert (none.chosen.rule, none.basis) == ("spec", None)


def test_what_was_not_timed_is_no_candidate():
    found = decided(LOSS, SPEC, (v3(0.4), RIGHT, None))
    assert found.hypotheses == () and found.chosen.rule == "spec"
    assert found.nearest is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaxQualityLoss(-0.1, 1.0), "max_quality_loss=-0.1 must be at least 0 and below 1"),
        (lambda: MaxQualityLoss(100.0, 100.0), "below 100, the score of a perfect answer"),
        (lambda: MaxQualityLoss(float("nan"), 1.0), "max_quality_loss=nan must be"),
        (lambda: MinSpeedUp(0.0), "min_speedup=0 must be a positive number"),
        (lambda: MinSpeedUp(float("nan")), "min_speedup=nan must be"),
    ],
)
def test_promises_that_say_nothing_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


# ---- the summary ----


def told(test_scores, promise=LOSS, speed=2.0, validation=(1, 2.0)):
    lost, fast = validation
    found = decided(promise, SPEC, (v3(0.4), wrong(lost), fast))
    test = points_of(
        "test",
        (EXPERT, RIGHT, 1.0),
        (speculative("spec"), RIGHT, 1.4),
        (v3(0.4), test_scores, speed),
    )
    return summary.write(found, test, [])


@pytest.mark.parametrize(
    ("lost", "kept", "words"),
    [
        (3, True, "The promise held."),
        (17, False, "DID NOT HOLD on these examples, by no more than chance explains"),
        (60, False, "DID NOT HOLD, and chance does not explain"),
    ],
)
def test_the_promise_is_held_to_on_test(lost, kept, words):
    text, record = told(wrong(lost))
    assert words in text and record["kept_on_test"] is kept
    assert record["test"]["chosen"]["quality_loss"] == pytest.approx(lost / SIZE)
    assert record["test"]["lossless"]["speedup"] == pytest.approx(1.4, rel=0.01)


def test_a_promise_of_speed_is_held_to_likewise():
    text, record = told(RIGHT, MinSpeedUp(1.8), speed=1.5)
    assert record["kept_on_test"] is False and "DID NOT HOLD, and chance" in text
    assert told(RIGHT, MinSpeedUp(1.8))[1]["kept_on_test"] is True


def test_where_nothing_is_certified_it_says_what_would_help():
    text, record = told(RIGHT, validation=(12, 2.0))
    assert record["basis"] == "law" and record["chosen"]["rule"] == "spec"
    assert "No other setting was certified; nearest: `token_v3 alpha=0.4" in text
    assert "validation examples would certify it if that estimate stands" in text
    text, record = told(RIGHT, MinSpeedUp(3.0))
    assert record["basis"] is None and record["kept_on_test"] is None
    assert "Nothing was certified, nothing is promised. Chosen: `spec" in text
    assert "ask for no more than the bound" in text
