import csv
import io
import json

import matplotlib.image
import pytest

from speccascade.errors import UserError
from speccascade.evaluate import metrics
from speccascade.report import plots, report, table
from speccascade.report.choice import CRITERIA, choose
from speccascade.report.points import collect
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


@pytest.fixture
def points():
    rows, config = sweep(*POINTS)
    return collect(rows, config, "COMMAND")


@pytest.fixture
def tables(points):
    return [choose(points, 0.0, criterion) for criterion in CRITERIA]


def write(workdir, rows, config):
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_markdown(tables):
    text = table.markdown(tables, ["a note"])
    assert "**Largest speed-up at no loss of quality, temperature 0**" in text
    low, high = metrics.bootstrap(mean, HALF)
    assert (
        f"| token_v3 | alpha=0.3 N=3 token | 2.00 [1.95, 2.05] faster | 0.500 [{low:.3f}, "
        f"{high:.3f}] | +0.000 [+0.000, +0.000] not told apart | 2.50 | 0.200 |"
    ) in text
    assert "| autoregressive_drafter | none admitted | – | – | – | – | – |" in text
    assert text.endswith("- a note\n")
    assert "nan" not in text.lower() and "None" not in text


def test_csv_has_every_figure_and_nothing_for_nothing(tables):
    records = list(csv.DictReader(io.StringIO(table.comma_separated(tables))))
    assert len(records) == 10
    by_name = {(r["criterion"], r["method"]): r for r in records}
    found = by_name["fastest", "token_v3"]
    assert (found["knobs"], found["draft_length"], found["verifier"]) == ("alpha=0.3", "3", "token")
    assert float(found["speedup"]) == 2.0 and float(found["validation_speedup"]) == 2.0
    assert found["quality_verdict"] == "not told apart" and found["num_examples"] == "40"
    none = by_name["fastest", "autoregressive_drafter"]
    assert none["quality"] == none["speedup_low"] == none["verifier"] == ""
    assert by_name["best", "autoregressive_drafter"]["quality"] == "0.0"


def test_latex_escapes_names(tables):
    text = table.latex(tables, ["a note"])
    assert r"token\_v3 & alpha=0.3 N=3 token & 2.00 [1.95, 2.05]" in text
    assert text.count(r"\begin{tabular}") == 2 and "–" not in text


@pytest.mark.parametrize("draw", [plots.quality_latency, plots.quality_rejection])
def test_plots_are_drawn(points, tmp_path, draw):
    path = str(tmp_path / "plot.png")
    draw(points, "test", path)
    image = matplotlib.image.imread(path)
    assert image.shape[0] > 400 and image.shape[1] > 600
    assert image[..., :3].std() > 0.05


def test_report_writes_all_files(tmp_path):
    write(tmp_path, *sweep(*POINTS))
    text, paths = report(str(tmp_path))
    assert {path.rsplit("/", 1)[1] for path in paths} == {
        "table.md",
        "table.csv",
        "table.tex",
        "quality_latency.png",
        "quality_rejection.png",
    }
    assert (tmp_path / "report/table.md").read_text() == text
    assert "40 validation and 40 test examples, 2 of each timed" in text


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (lambda row: row["kind"] == "quality", "no setting was timed yet; run python scripts/eval"),
        (lambda row: row["split"] == "test", "was not measured on validation and test"),
        (lambda row: row["method"] == "speculative", "was not measured on validation and test"),
        (lambda row: False, "no results yet; run python scripts/evaluate.py"),
    ],
)
def test_what_is_missing_is_said_with_the_command(tmp_path, kept, message):
    rows, config = sweep(*POINTS)
    write(tmp_path, [row for row in rows if kept(row)], config)
    with pytest.raises(UserError, match=message):
        report(str(tmp_path))


def test_other_workdirs_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no evaluation; run python scripts/evaluate.py"):
        report(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="belongs to a training"):
        report(str(tmp_path))
