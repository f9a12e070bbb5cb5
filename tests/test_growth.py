"""The growths: what they measure is what they say, and a run goes on. No time is ever compared."""

import csv
import pathlib
import runpy

import ml_collections
import pytest

from speccascade.benchmark.growth import batches, growing, sets, start
from speccascade.errors import UserError
from speccascade.inference.sweep import product
from tests.smallest_model import MODEL

SECTION = {
    "expert": dict(MODEL),
    "drafter": dict(MODEL),
    "agreement": 0.5,
    "draft_length": 2,
    "prompt_length": 3,
    "new_tokens": 6,
    "window": 4,
    "num_prompts": 5,
    "sweep_prompts": 2,
    "sweep_slots": 3,
    "sweeps": {
        "alphas": product(rule="token_v3", alpha=(0.2, 0.4)),
        "rules": product(rule="spec") + product(rule="chow", alpha=0.3),
    },
    "sizes": {"cache": (64, 32)},
    "trials": 1,
}


def config(**changes) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict({"growth": {**SECTION, **changes}})


def lines_of(folder) -> dict:
    with open(folder / "growth.csv") as file:
        return {(r["growth"], r["size"], r["series"]): r for r in csv.DictReader(file)}


def test_a_run_goes_on_and_leaves_a_table_a_plot_and_a_csv(tmp_path):
    said = []
    growing.run(config(), str(tmp_path), said.append)
    first = (tmp_path / "results.jsonl").read_text()
    growing.run(config(sizes={"cache": (64, 16, 32)}), str(tmp_path), said.append)
    again = (tmp_path / "results.jsonl").read_text()
    assert again.startswith(first) and len(again.splitlines()) == len(first.splitlines()) + 1 == 3
    lines = lines_of(tmp_path)
    assert [size for _, size, series in lines if series == "full"] == ["16", "32", "64"]
    # Keys and values of one head of four float32 numbers; a ring of the window and one more.
    megabytes = {key: float(line["megabytes"]) for key, line in lines.items()}
    for size in ("16", "32", "64"):
        assert megabytes["cache", size, "full"] == pytest.approx(int(size) * 8 * 4 / 1e6)
        assert megabytes["cache", size, "window of 4"] == pytest.approx(5 * 8 * 4 / 1e6)
    assert all(float(line["value"]) > 0 for line in lines.values())
    assert [path.name for path in tmp_path.glob("*.png")] == ["growth_cache.png"]
    tables = [text for text in said if text.startswith("### cache: ms per pass of the expert")]
    assert len(tables) == 2 and "2 times as much: full" in tables[0]
    with pytest.raises(UserError, match="growth.agreement"):
        growing.run(config(agreement=0.6), str(tmp_path), said.append)


@pytest.mark.slow
def test_a_prompt_and_the_answer_behind_it():
    series = batches.PROMPT.at(SECTION, 4)
    assert {name for name in series if emitted(series[name]) == 6} == {"expert alone", "spec"}


def emitted(series) -> int:
    """Returns what a timing keeps: how many tokens there were."""
    timed = series.timed
    timed.warm()
    return timed.keep(timed.run(timed.prepare()))


@pytest.mark.slow
def test_a_set_is_answered_whole_in_slots_and_in_batches():
    series = sets.SLOTS.at(SECTION, 2)
    found = {emitted(own) for own in series.values()}
    assert len(found) == 1 and 5 <= found.pop() <= 5 * 6
    assert all(own.memory(None) > 0 for own in series.values())


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_a_sweep_answers_every_prompt_under_every_setting(size):
    for series in sets.SETTINGS.at(SECTION, size).values():
        assert emitted(series) == size * 2 * 6


@pytest.mark.slow
def test_batches_answer_all_rows_and_hold_what_they_must():
    few, many = (batches.BATCH.at(SECTION, size) for size in (1, 3))
    for name in few:
        assert [emitted(own[name]) for own in (few, many)] == [6, 18]
    larger = batches.VOCABULARY.at(SECTION, 370)
    # Embeddings and, of one row, logits of both models.
    added = (370 - 37) * MODEL["d_model"] * 4
    alone = "expert alone"
    assert larger[alone].memory(None) - few[alone].memory(None) >= added


@pytest.mark.slow
def test_a_process_starts_cold_and_warm(tmp_path):
    said = []
    growing.run(config(sizes={"start": (1,)}), str(tmp_path), said.append)
    lines = lines_of(tmp_path)
    assert {series for _, _, series in lines} == {"cold", "warm"}
    assert all(float(line["megabytes"]) > 50 for line in lines.values())


@pytest.mark.slow
def test_a_process_that_fails_says_why():
    series = start.LAYERS.at({**SECTION, "draft_length": 0}, 1)["cold"].timed
    with pytest.raises(UserError, match="draft_length"):
        series.run(series.prepare())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trials": 0}, "growth.trials=0"),
        ({"sizes": {"prompts": (4,)}}, "prompts"),
        ({"sizes": {"prompt": (0,)}}, "growth.sizes.prompt"),
        ({"sizes": {"settings": (1, 3)}}, "growth.sweeps has 2 alphas"),
        ({"sizes": 4}, "growth.sizes"),
    ],
)
def test_bad_config_is_one_line(changes, words, tmp_path):
    with pytest.raises(UserError) as error:
        growing.run(config(**changes), str(tmp_path / "run"), print)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_the_config_that_comes_with_the_project():
    path = pathlib.Path(__file__).parents[1] / "configs/growth.py"
    section = growing._read(runpy.run_path(str(path))["get_config"]())
    assert list(section["sizes"]) == list(growing.GROWTHS)
