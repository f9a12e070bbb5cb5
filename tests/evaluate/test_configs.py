"""The configs that come with the project: every setting of their grids is valid."""

import pathlib
import runpy

import pytest

from speccascade.evaluate import run
from speccascade.evaluate.settings import Setting, expand
from speccascade.rules import RULES

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def config(name):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]()


@pytest.mark.parametrize("name", ["quickstart", "gsm_symbolic", "learned_rule", "smollm2"])
def test_grids_are_valid_and_have_what_a_table_needs(name):
    section = config(name).evaluate
    settings = expand(section.settings)
    run._check(section.to_dict())
    assert {"validation", "test"} == set(section.splits)
    for temperature in {s.temperature for s in settings}:
        assert Setting("autoregressive_expert", temperature=temperature) in settings


def test_the_whole_experiment_runs_every_rule():
    # The laws of `expert` and `drafter` are run as spec and as the drafter's own decoding.
    grids = (config(name).evaluate.settings for name in ("gsm_symbolic", "learned_rule"))
    found = {s.rule for grid in grids for s in expand(grid)}
    assert found >= set(RULES) - {"expert", "drafter"}


def test_the_quickstart_is_about_the_same_task():
    assert config("quickstart").task.to_dict() == config("gsm_symbolic").task.to_dict()
