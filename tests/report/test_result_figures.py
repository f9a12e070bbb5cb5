"""The figures of the result pages that are drawn from the pages' own tables."""

import pathlib
import runpy

import pytest

from speccascade.inference.reading import setting

FIGURES = runpy.run_path(str(pathlib.Path(__file__).parents[2] / "docs" / "figures.py"))


@pytest.mark.parametrize("pair", FIGURES["HEADS"])
def test_every_measured_cell_is_a_point_of_its_own(pair):
    found = list(FIGURES["read"](pair))
    table = (FIGURES["HERE"] / f"data/{pair}_every_setting.csv").read_text()
    assert len(found) == table.count(" [") - table.splitlines()[0].count(" [")
    assert len({point.setting for point in found}) == len(found)
    assert all(point.interval[0] <= point.quality <= point.interval[1] for point in found)


def test_names_are_settings():
    found = {point.setting: point for point in FIGURES["read"]("summaries")}
    drafted = {"draft_length": 5, "temperature": 1.0}
    point = found[setting({"rule": "spec", "expert_top_p": 0.3, **drafted})]
    assert point.rates == {"tokens_per_expert_call": 1.75, "rejection_rate": 0.53}
    assert found[setting({"rule": "token_v3", "alpha": 0.8, **drafted})].interval == (4.53, 7.65)


@pytest.mark.parametrize("pair", FIGURES["HEADS"])
def test_every_figure_on_the_references_is_a_point(pair):
    found = list(FIGURES["read_references"](pair))
    table = (FIGURES["HERE"] / f"data/{pair}_references.csv").read_text().splitlines()[1:]
    assert sum(len(forced.quality) for forced in found) == len(table)
    assert len({forced.setting for forced in found}) == len(found)
    curves = [forced for forced in found if len(forced.quality) > 1]
    assert len(curves) == 2 and all(forced.deferral[-1] == 1 for forced in curves)
