import csv
import io
import json

import matplotlib.image
import pytest

from speccascade.errors import UserError
from speccascade.inference import metrics
from speccascade.report import (
    choice_table,
    every_setting,
    references,
    report,
    slices,
    style,
    table,
    tradeoffs,
)
from speccascade.report.choice import CRITERIA, TEST, choose
from speccascade.report.points import collect
from speccascade.rules import RULES
from speccascade.tasks.aggregate import mean
from tests.report.synthetic import DRAFTER, EXPERT, speculative, sweep

HALF = [1.0, 0.0] * 20
POINTS = [
    (EXPERT, HALF, HALF, 1.0),
    (DRAFTER, [0.0] * 40, [0.0] * 40, 0.2),
    (speculative("spec"), HALF, HALF, 0.8),
    (speculative("token_v3", alpha=0.3), HALF, HALF, 0.5),
    (speculative("token_v3", alpha=0.3, verifier="block"), HALF, HALF, 0.6),
    ({"method": "sequence_cascade", "threshold": -0.5}, HALF, HALF, 1.1),
]
WARM = {"temperature": 1.0}
# Two temperatures, two draft lengths and the expert's top-p.
WIDER = [
    *POINTS,
    ({**EXPERT, **WARM}, HALF, HALF, 1.0),
    (speculative("spec", **WARM), HALF, HALF, 0.8),
    (speculative("spec", 5, **WARM), HALF, HALF, 0.7),
    (speculative("spec", expert_top_p=0.5, **WARM), HALF, HALF, 0.8),
    (speculative("token_v3", alpha=0.3, **WARM), HALF, HALF, 0.7),
    (speculative("lossy", alpha=0.3, **WARM), HALF, HALF, 0.6),
]


@pytest.fixture
def points():
    rows, config = sweep(*POINTS)
    return collect(rows, config, "COMMAND")


@pytest.fixture
def wider():
    rows, config = sweep(*WIDER)
    return collect(rows, config, "COMMAND")


@pytest.fixture
def choices(points):
    return [choose(points, 0.0, criterion) for criterion in CRITERIA]


@pytest.fixture
def tables(points, choices):
    return [choice_table.make(found, points) for found in choices]


def write(workdir, rows, config):
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_markdown(tables):
    text = table.markdown(tables, ["a note"])
    assert "**Largest speed-up at no loss of quality, temperature 0**" in text
    low, high = metrics.bootstrap(mean, HALF)
    assert (
        f"| token_v3 | alpha=0.3 N=3 token | 2.00 [1.95, 2.05] faster | 0.500 [{low:.3f}, "
        f"{high:.3f}] | +0.000 [+0.000, +0.000] not told apart | 2.50 | 0.200 | – |"
    ) in text
    assert "| autoregressive_drafter | none admitted | – | – | – | – | – | – |" in text
    assert text.endswith("- a note\n")
    assert "nan" not in text.lower() and "None" not in text


def test_csv_has_every_figure_and_nothing_for_nothing(points, choices):
    made = [choice_table.record(choice, points) for found in choices for choice in found]
    records = list(csv.DictReader(io.StringIO(table.comma_separated(made))))
    assert len(records) == 10
    by_name = {(r["criterion"], r["method"]): r for r in records}
    found = by_name["fastest", "token_v3"]
    assert (found["knobs"], found["draft_length"], found["verifier"]) == ("alpha=0.3", "3", "token")
    assert float(found["speedup"]) == 2.0 and float(found["validation_speedup"]) == 2.0
    assert found["quality_verdict"] == "not told apart" and found["num_examples"] == "40"
    none = by_name["fastest", "autoregressive_drafter"]
    assert none["quality"] == none["speedup_low"] == none["verifier"] == ""
    assert by_name["best", "autoregressive_drafter"]["quality"] == "0.0"


def test_compute_is_relative_to_the_experts(points):
    rows, config = sweep(*POINTS)
    for row in rows:
        if row["kind"] == "quality":
            own = {"autoregressive_expert": 100.0, "speculative": 150.0}
            row["multiply_adds_per_token"] = own.get(row["method"])
    found = collect(rows, config, "COMMAND")
    [made] = [choice_table.make(choose(found, 0.0, CRITERIA[1]), found)]
    compute = {row[0]: row[-1] for row in made.rows}
    assert compute["autoregressive_expert"] == "1.00" and compute["spec"] == "1.50"
    assert compute["autoregressive_drafter"] == "–"  # rows did not always count it


def test_latex_escapes_names(tables):
    text = table.latex(tables, ["a note"])
    assert r"token\_v3 & alpha=0.3 N=3 token & 2.00 [1.95, 2.05]" in text
    assert text.count(r"\begin{tabular}") == 2 and "–" not in text


def drawn(path) -> bool:
    image = matplotlib.image.imread(path)
    return image.shape[0] > 400 and image.shape[1] > 600 and image[..., :3].std() > 0.03


@pytest.mark.parametrize(
    "draw",
    [
        tradeoffs.quality_latency,
        tradeoffs.quality_calls,
        tradeoffs.quality_rejection,
        tradeoffs.quality_deferral,
        references.quality_deferral,
    ],
)
def test_plots_are_drawn(points, tmp_path, draw):
    path = str(tmp_path / "plot.png")
    draw(points, TEST, path)
    assert drawn(path)


def test_a_method_looks_alike_in_every_figure():
    looks = {name: style.line(name) for name in (*RULES, "token_cascade", "sequence_cascade")}
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == len(looks)
    plain, limited = style.line("spec"), style.line("spec, expert top_p")
    assert (plain["color"], plain["marker"]) == (limited["color"], limited["marker"])
    assert plain["linestyle"] == "-" != limited["linestyle"]


def test_slices_are_settings_that_differ_in_one_field_alone(wider, points, tmp_path):
    assert slices.by_temperature(points) == slices.by_draft_length(points) == {}
    assert slices.by_top_p(points, "expert") == slices.by_top_p(wider, "drafter") == {}
    [lengths] = slices.by_draft_length(wider).items()
    assert lengths[0] == "temperature 1"
    [(name, line)] = lengths[1].items()
    assert name == "spec (token)" and [x for x, _ in line] == [3, 5]
    [line] = slices.by_top_p(wider, "expert")["temperature 1"].values()
    assert [(x, p.setting.expert_truncation) for x, p in line] == [
        (0.5, (("top_p", 0.5),)),
        (1.0, ()),
    ]
    temperatures = slices.by_temperature(wider)[""]
    assert set(temperatures) == {"autoregressive_expert", "spec", "token_v3"}
    assert [x for x, _ in temperatures["spec"]] == [0.0, 1.0]
    slices.draw(slices.by_temperature(wider), "temperature", str(tmp_path / "plot.png"))
    assert drawn(tmp_path / "plot.png")


def test_the_oracle_stands_beside_every_rule(points):
    records = [r for r in references.records(points) if r["split"] == TEST]
    rule = next(r for r in records if r["method"] == "token_v3")
    assert rule["deferral_rate"] == 0.25 and rule["quality"] == 0.3
    assert rule["oracle_quality"] == pytest.approx(0.45)  # half-way from 0.2 to 0.7
    lossless = next(r for r in records if r["method"] == "spec")
    assert lossless["deferral_rate"] is None and lossless["oracle_quality"] is None
    assert len([r for r in records if r["method"] == "oracle"]) == 3


def test_report_writes_all_files(tmp_path):
    write(tmp_path, *sweep(*POINTS))
    text, paths = report(str(tmp_path))
    assert {path.rsplit("/", 1)[1] for path in paths} == {
        "report.md",
        "table.csv",
        "table.tex",
        "settings.csv",
        "comparisons.csv",
        "references.csv",
        "quality_latency.png",
        "quality_calls.png",
        "quality_rejection.png",
        "references_deferral.png",
    }
    document = (tmp_path / "report/report.md").read_text()
    assert document.startswith(text)
    assert "40 validation and 40 test examples, 2 of each timed" in text


@pytest.fixture(scope="module")
def wide_report(tmp_path_factory):
    """The workdir of a sweep of `WIDER`, and what its report gives."""
    workdir = tmp_path_factory.mktemp("wider")
    write(workdir, *sweep(*WIDER))
    return workdir, *report(str(workdir))


def test_report_has_more_where_the_sweep_has(wide_report):
    workdir, _, paths = wide_report
    names = {path.rsplit("/", 1)[1] for path in paths}
    assert {"temperature.png", "top_p_expert.png", "draft_length.png"} <= names
    assert {"draft_length.csv", "draft_length.tex", "correlation.csv"} <= names
    assert "top_p_drafter.png" not in names and "quality_deferral.png" not in names
    document = (workdir / "report/report.md").read_text()
    assert all(f"({name})" in document for name in names if name.endswith(".png"))
    assert "temperature 1, N = 5**" in document and "| spec, expert top_p | top_p=0.5" in document
    assert "nan" not in document.lower() and "None" not in document


def test_every_setting_stands_in_the_table_of_its_temperature_and_draft_length(wider):
    found = every_setting.tables(wider, "test")
    there = [s for s, split in wider.by_setting if split == "test"]
    assert sum(len(table.rows) for table in found) == len(there) == len(set(there))
    for one in found:
        assert len(set(map(tuple, one.rows))) == len(one.rows)
    records = every_setting.records(wider, "test")
    assert [r["quality"] for r in records] == [wider.of(s, "test").quality for s in there]
    assert {one.title for one in found} == {
        f"Temperature {s.temperature:g}, "
        + ("without blocks" if s.draft_length is None else f"N = {s.draft_length}")
        for s in there
    }


def test_without_times_there_is_everything_that_needs_none(tmp_path):
    rows, config = sweep(*[(*point[:3], None) for point in WIDER])
    config["evaluate"]["timing"]["num_examples"] = 0
    write(tmp_path, rows, config)
    text, paths = report(str(tmp_path))
    names = {path.rsplit("/", 1)[1] for path in paths}
    assert {"quality_rejection.png", "references_deferral.png", "settings.csv"} <= names
    assert not {"quality_latency.png", "table.csv", "comparisons.csv"} & names
    assert "Nothing was timed" in text and "**Temperature 1, N = 5**" in text
    assert "nan" not in (tmp_path / "report/report.md").read_text().lower()


def test_methods_of_one_draft_length_are_named(wide_report):
    _, text, _ = wide_report
    assert "(one alone for token_v3: 3, spec, expert top_p: 3, lossy: 3)" in text


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (lambda row: row["kind"] == "quality", "no setting was timed yet; run python scripts/eval"),
        (lambda row: row["split"] == "test", "not measured on validation and test yet; run python"),
        (lambda row: row["method"] == "speculative", "on validation and test yet; run python"),
        (
            lambda row: (row["kind"] == "timing") == (row["method"] == "speculative"),
            "of no setting are there a quality and a time: 6 times are of settings whose quality",
        ),
        (lambda row: False, "no results yet; run python scripts/evaluate.py"),
    ],
)
def test_what_is_missing_is_said_with_the_command(tmp_path, kept, message):
    rows, config = sweep(*POINTS)
    write(tmp_path, [row for row in rows if kept(row)], config)
    with pytest.raises(UserError, match=message):
        report(str(tmp_path))


def test_what_the_config_does_not_ask_for_is_said(tmp_path):
    write(tmp_path, *sweep(*[point for point in POINTS if point[0] is not EXPERT]))
    with pytest.raises(UserError, match="validation and test; let the config ask for it and run"):
        report(str(tmp_path))


def test_other_workdirs_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no evaluation; run python scripts/evaluate.py"):
        report(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="belongs to a training"):
        report(str(tmp_path))


NAMES = (
    "acceptance_length",
    "acceptance_of_tested",
    "acceptance_of_drafted",
    "acceptance_by_position",
    "time_to_first_token",
    "time_per_output_token",
)


def test_names_that_others_use_are_there_for_the_asking(tmp_path):
    rows, config = sweep(*POINTS)
    measured = {"acceptance_of_drafted": 0.4, "acceptance_by_position": [0.75, 0.5, 0.25]}
    for row in rows:
        if row["method"] == "speculative" and row["rule"] == "spec":
            row |= measured if row["kind"] == "quality" else {"first_ms": [2.0, 3.0]}
    write(tmp_path, rows, config)
    plain, _ = report(str(tmp_path))
    assert "TTFT" not in plain and "acceptance" not in plain
    text, _ = report(str(tmp_path), asked=NAMES)
    line = next(line for line in text.splitlines() if line.startswith("| spec |"))
    # Two answers of ten tokens in 8 ms each: 6 ms and 5 ms for nine tokens behind the first.
    assert line.endswith("| 2.50 | 0.800 | 0.400 | 0.75 0.50 0.25 | 2.5 | 0.61 |")
    # What older rows lack, and what a method has not.
    line = next(line for line in text.splitlines() if line.startswith("| token_v3 |"))
    assert line.endswith("| 2.50 | 0.800 | – | – | – | – |")
    line = next(line for line in text.splitlines() if line.startswith("| autoregressive_expert |"))
    assert line.endswith("| – | – | – | – | – | – |")
    records = list(csv.DictReader(io.StringIO((tmp_path / "report/settings.csv").read_text())))
    spec = next(r for r in records if r["method"] == "spec")
    assert (spec["acceptance_by_position_3"], spec["time_to_first_token"]) == ("0.25", "2.5")
    with pytest.raises(UserError, match="column 'ttft' is unknown; choose one of: quality, sp"):
        report(str(tmp_path), asked=["ttft"])
