"""The configs that come with the project: every setting of their grids is valid."""

import pathlib
import runpy
import shutil

import pytest

from speccascade import tasks
from speccascade.evaluate import sections
from speccascade.inference import methods
from speccascade.inference.reading import expand
from speccascade.inference.setting import Setting
from speccascade.rules import RULES
from tests import toy_head

LOCAL = (
    "quickstart",
    "word_problems",
    "gsm_symbolic",
    "learned_rule",
    "three_models",
    "lossy_modes",
    "debian_en_de",
    "debian_summaries",
    "smollm2",
)
CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def module(name):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))


def config(name):
    return module(name)["get_config"]()


@pytest.mark.parametrize(
    ("name", "arg"),
    [(name, None) for name in LOCAL]
    + [(f"paper/{name}", "wmt14") for name in ("gemma2_2b_9b", "gemma2_2b_27b")]
    + [(f"paper/{name}", "wmt14") for name in ("t5_small_large", "t5_small_xl")],
)
def test_every_experiment_has_its_sweep_in_its_file(name, arg):
    found = module(name)
    made = found["get_config"](*([arg] if arg else []))
    assert expand(made.evaluate.settings) == expand(found["sweep"]())


@pytest.mark.parametrize("name", LOCAL)
def test_grids_are_valid_and_have_what_a_table_needs(name):
    section = config(name).evaluate
    settings = expand(section.settings)
    sections.check(section.to_dict())
    assert {"validation", "test"} == set(section.splits)
    for temperature in {s.temperature for s in settings}:
        assert Setting(methods.EXPERT, temperature=temperature) in settings


def test_the_whole_experiment_runs_every_rule():
    # The laws of `expert` and `drafter` are run as spec and as the drafter's own decoding.
    grids = (config(name).evaluate.settings for name in ("gsm_symbolic", "learned_rule"))
    found = {s.rule for grid in grids for s in expand(grid)}
    assert found >= set(RULES) - {"expert", "drafter"}


def test_the_short_sweep_is_about_the_same_task():
    assert config("word_problems").task.to_dict() == config("gsm_symbolic").task.to_dict()


def test_the_quickstart_has_its_descriptions_wherever_it_is_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = config("quickstart")
    task = tasks.make(made.task)
    for split, count in made.evaluate.splits.items():
        examples = task.examples(split)
        assert len(examples) == count
        for example in examples:
            assert 25 <= len(example.prompt.removeprefix("summarize: ").split()) <= 60
            assert 3 <= len(example.reference[0].split()) <= 9
            assert task.score(example.reference[0], example) == task.full_score


@pytest.mark.parametrize("name", ["debian_en_de", "debian_summaries"])
def test_the_directory_of_a_pair_is_measured_with_its_own_head(name, tmp_path):
    shutil.copy(toy_head.PATH, tmp_path / "head.json")
    made = module(name)["get_config"](str(tmp_path))
    assert made.pair == str(tmp_path) and made.task.name == name
    heads = {dict(s.knobs)["head"] for s in expand(made.evaluate.settings) if s.rule == "learned"}
    assert {h.rpartition("@")[0] for h in heads} == {str(tmp_path / "head.json")}
