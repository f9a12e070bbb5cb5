"""Rivals as fast as a mode: how their strength is found, what is measured, what is said."""

import json

import ml_collections
import numpy as np
import pytest

from speccascade import pairs
from speccascade.errors import UserError
from speccascade.inference.reading import from_fields, setting
from speccascade.inference.sweep import product
from speccascade.lossy import beside, matching, measuring
from speccascade.report.choice import TEST, VALIDATION
from speccascade.workdir import results
from tests import tiny_pair
from tests.report import synthetic
from tests.training import tiny

SPLITS = VALIDATION, TEST
MODE = {"method": "kernel", "rule": "cactus", "delta": 0.5, "draft_length": 4, "temperature": 1.0}
TWIN = {**MODE, "method": "twin"}
ENDLESS = {k: v for k, v in TWIN.items() if k != "draft_length"}
SPEC = {"draft_length": 4, "temperature": 1.0}
CUT = {"name": "cut", "fields": [{"rule": "spec", **SPEC}], "grid": [0.0, 0.5]}
CUT["strength"] = ["expert_min_p", "drafter_min_p"]
LOSSY = {"name": "lossy", "fields": [{"rule": "lossy", **SPEC}], "grid": [0.0, 0.5, 0.9]}
LOSSY["strength"] = ["alpha"]


# ---- the search ----


@pytest.mark.parametrize("wanted", [1.5, 2.0, 3.7])
def test_the_strength_of_equal_speed_is_found(wanted):
    def speed(strength):
        return 1.2 + 3 * strength**2

    measured = {s: speed(s) for s in (0.0, 0.3, 0.6, 1.0)}
    for _ in range(matching.ROUNDS):
        found = matching.between(measured, wanted)
        if found.next is None:
            break
        measured[found.next] = speed(found.next)
    found = matching.between(measured, wanted)
    assert found.reaches and abs(speed(found.strength) / wanted - 1) <= 2 * matching.CLOSE
    assert found.strength == pytest.approx(np.sqrt((wanted - 1.2) / 3), abs=0.01)


def test_where_no_strength_is_as_fast_the_fastest_stands():
    assert matching.between({0.0: 1.2, 0.5: 1.9, 1.0: 1.7}, 2.5) == (0.5, False, None)


def test_of_strengths_on_both_sides_of_a_hill_the_lesser_one_is_taken():
    assert matching.between({0.0: 1.2, 0.4: 1.8, 0.7: 2.4, 1.0: 1.8}, 1.8).strength == 0.4


def test_where_the_experts_own_law_is_faster_it_is_the_rival():
    assert matching.between({0.0: 1.8, 0.5: 1.9}, 1.3) == (0.0, True, None)


def test_a_jump_ends_between_its_sides():
    found = matching.between({0.0: 1.0, 1e-4: 3.0}, 2.0)
    assert found.reaches and found.next is None


# ---- families ----


def test_a_family_knows_its_settings():
    (cut,) = matching.families({"rivals": [CUT]})
    found = setting({"rule": "spec", "expert_min_p": 0.3, "drafter_min_p": 0.3, **SPEC})
    assert cut.setting(0.3) == found and cut.strength_of(found) == 0.3
    one_sided = setting({"rule": "spec", "expert_min_p": 0.3, **SPEC})
    assert cut.strength_of(one_sided) is None
    assert cut.strength_of(setting({"rule": "lossy", "alpha": 0.3, **SPEC})) is None
    (lossy,) = matching.families({"rivals": [LOSSY]})  # which has no such strength
    assert lossy.strength_of(setting({"rule": "token_v3", "alpha": -0.01, **SPEC})) is None
    assert cut.rivals(setting(MODE)) and not cut.rivals(setting({**MODE, "temperature": 0.0}))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "the config has no section rivals"),
        ({"rivals": [{"name": "cut"}]}, r"rivals\[0\]"),
        ({"rivals": [{**CUT, "grid": [0.5, 0.1]}]}, r"rivals\[0\].grid=.* ascending"),
    ],
)
def test_a_bad_family_is_said(given, message):
    with pytest.raises(UserError, match=message):
        matching.families(given)


# ---- what is measured ----


def config(directory: str) -> ml_collections.ConfigDict:
    made = tiny_pair.get_config(directory)
    drafted = {"draft_length": 2, "temperature": 1.0}
    single = {"rule": "sglang_threshold", "threshold_acc": 0.3, **drafted}
    made.evaluate.settings = (
        *product(method="autoregressive_expert", temperature=1.0),
        *product(method=("kernel", "twin"), **single),
    )
    made.evaluate.timing.num_examples = 0
    lossy = {"fields": product(rule="lossy", **drafted), "strength": ("alpha",)}
    made.rivals = ({"name": "lossy", "grid": (0.0, 0.5, 0.99), **lossy},)
    return made


@pytest.mark.slow
def test_a_workdir_is_measured_once_and_says_what_came_of_it(tmp_path_factory, tmp_path):
    directory = str(tmp_path_factory.mktemp("pair"))
    pairs.export(tiny_pair.make(), directory, {})
    made, workdir = config(directory), str(tmp_path)
    assert measuring.measure(made, workdir) == []
    rows = results.read(workdir)
    by_split = {split: {from_fields(r) for r in rows if r["split"] == split} for split in SPLITS}
    mode = setting(dict(made.evaluate.settings[1]))
    held_out = by_split[TEST] - {setting(dict(s)) for s in made.evaluate.settings}
    assert len(held_out) == 1  # the strength that validation chose, and no other
    (family,) = matching.families(made)
    grid = {family.setting(strength) for strength in family.grid}
    assert held_out | grid | {mode} <= by_split[VALIDATION]
    text = beside.report(workdir)
    assert mode.rule in text and "twin" in text
    assert measuring.measure(made, workdir) == [] and len(results.read(workdir)) == len(rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": {"test": 4}}, "evaluate.splits lacks validation"),
        ({"settings": product(rule="spec", draft_length=2)}, "has no method=kernel"),
    ],
)
def test_bad_input_is_said_before_anything_is_decoded(change, message, tmp_path):
    made = config("nowhere")
    with made.unlocked():
        for name, value in change.items():
            made.evaluate[name] = value
    with pytest.raises(UserError, match=message):
        measuring.measure(made, str(tmp_path))


# ---- what is said ----

EXPERT = {"method": "autoregressive_expert", "temperature": 1.0}
SPEEDS = {"cut": {0.0: 2.0, 0.5: 2.2}, "lossy": {0.0: 2.0, 0.5: 2.502, 0.9: 3.0}}
SIZE = 200


def entries():
    for given in (CUT, LOSSY):
        (family,) = matching.families({"rivals": [given]})
        for strength, speed in SPEEDS[family.name].items():
            yield family.at(strength)[0], speed


@pytest.fixture
def workdir(tmp_path):
    """A mode of 2.5 tokens per call with 40 % right, its twin with 41, rivals with 90."""
    right = {json.dumps(MODE): 0.4, json.dumps(TWIN): 0.41, json.dumps(ENDLESS): 0.9}
    speeds = [(EXPERT, None), (MODE, 2.5), (TWIN, None), (ENDLESS, None), *entries()]
    rows = []
    for entry, speed in speeds:
        share = right.get(json.dumps(entry), 0.9)
        for split in SPLITS:
            scores = [float(i < share * SIZE) for i in range(SIZE)]
            row = synthetic.quality(entry, split, scores)
            rows.append({**row, "tokens_per_expert_call": speed})
    evaluate = {
        "settings": [entry for entry, _ in speeds],
        "splits": dict.fromkeys(SPLITS, SIZE),
        "max_new_tokens": 4,
        "batch_size": 4,
        "timing": {"num_examples": 0, "trials": 1},
    }
    task = tiny.get_config().task.to_dict()
    made = {"task": task, "pair": "shipped:gsm_symbolic", "evaluate": evaluate}
    (tmp_path / "config.json").write_text(json.dumps(made))
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / measuring.RIVALS).write_text(json.dumps([CUT, LOSSY]))
    return tmp_path


def test_a_mode_stands_beside_rivals_as_fast_and_its_twins(workdir):
    rivals, twins = (part.splitlines() for part in beside.report(str(workdir)).split("**Against d"))
    assert rivals[4] == "| the expert | 1 | 1.00 | 0.900 |  |  |"
    assert rivals[5] == (
        "| `cactus` `delta=0.5` | 1 | 2.50 | 0.400 | none; 0.5: 2.20, 0.900: mode worse "
        "| 0.5: 2.50, 0.900: mode worse |"
    )
    cells = next(line for line in twins if "cactus" in line).split(" | ")
    assert cells[3] == "0.410" and cells[4].endswith("not told apart")
    assert cells[5] == "0.900" and cells[6].startswith("-0.490") and "worse" in cells[6]
    lines = (workdir / "lossy_modes.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 and lines[0].startswith("setting,beside,its_setting,strength")


def test_where_the_expert_is_as_fast_the_best_of_validation_stands(workdir):
    path = workdir / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["method"] == "kernel":
            row["tokens_per_expert_call"] = 1.5
        if row["split"] == VALIDATION and row["expert_truncation"].get("min_p") == 0.5:
            row["scores"] = [1.0] * SIZE
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mode = next(s for s in beside.report(str(workdir)).splitlines() if "cactus" in s)
    assert "| 0.5: 2.20, 0.900: mode worse | 0: 2.00, 0.900: mode worse |" in mode


def test_a_difference_that_chance_makes_is_none(workdir):
    path = workdir / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["method"] == "kernel":  # 88 % right where the rivals have 90
            row["scores"] = [float(i < 176) for i in range(SIZE)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rivals = beside.report(str(workdir)).split("**Against d")[0]
    assert "mode worse" not in rivals and "mode better" not in rivals


def test_a_workdir_without_rivals_is_said(tmp_path):
    with pytest.raises(UserError, match=r"has no rivals.json; run scripts/lossy_modes.py --config"):
        beside.report(str(tmp_path))
