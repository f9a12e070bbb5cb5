"""What a report says of prompts and answers that were shortened, and of answers timed otherwise."""

import json

from speccascade.report import report
from speccascade.report.caveats import caveats
from speccascade.report.points import collect
from tests.report import synthetic

ENTRIES = [
    (synthetic.EXPERT, [1.0] * 4, [1.0] * 8, 1.0),
    (synthetic.speculative("spec"), [1.0] * 4, [1.0] * 8, 0.5),
]


def rows(**changes):
    """Rows of two settings on two splits; `changes` by kind are fields of the last such row."""
    found, config = synthetic.sweep(*ENTRIES)
    fields = {
        "quality": {"prompts_cut": 0, "answers_cut": 0},
        "teacher_forced": {"prompts_cut": 0, "answers_cut": 0},
        "timing": {"answers_compared": 2, "answers_differing": 0},
    }
    last = {row["kind"]: row["key"] for row in found}
    for row in found:
        own = changes.get(row["kind"], {}) if row["key"] == last[row["kind"]] else {}
        row.update({**fields[row["kind"]], **own})
    return found, config


def test_nothing_is_said_where_nothing_was_shortened():
    assert caveats(rows()[0]) == []
    assert caveats(synthetic.sweep(*ENTRIES)[0]) == []  # rows of before they counted


def test_what_was_shortened_is_said():
    found, config = rows(
        quality={"prompts_cut": 3, "answers_cut": 6},
        teacher_forced={"prompts_cut": 3, "answers_cut": 2},
        timing={"answers_differing": 1},
    )
    prompts, answers, references, timed = caveats(found)
    assert prompts == "Prompts that were cut to the pair's lengths: 3 of 8 of test"
    # Of two settings on 4 and 8 examples.
    assert "string: 6 of 24 (25 %); most under spec N=3 token T=0 on test, 6 of 8" in answers
    assert references == "Reference answers that were cut to the pair's lengths: 2 of 8 of test"
    assert "batches: 1 of 8 (12 %); sums" in timed
    assert set(caveats(found)) <= set(collect(found, config, "").notes)


def test_all_of_them_are_a_hundred_percent():
    every, _ = rows(timing={"answers_differing": 2})
    (told,) = caveats([row for row in every if row.get("answers_differing")])
    assert "2 of 2 (100 %)" in told


def test_the_report_has_it(tmp_path):
    found, config = rows(timing={"answers_differing": 2})
    (tmp_path / "config.json").write_text(json.dumps(config))
    lines = "".join(json.dumps(row) + "\n" for row in found)
    (tmp_path / "results.jsonl").write_text(lines)
    text, _ = report(str(tmp_path))
    assert "in batches: 2 of 8 (25 %)" in text
