"""The report as a page: what it says, that it is self-contained, that its script works."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess

import pytest

from speccascade.evaluate import quality
from speccascade.report import answers, headline, page
from speccascade.report.points import collect
from speccascade.tasks.example import Example
from tests.browser import CHROMIUM, browse
from tests.report import synthetic

SETTINGS = (
    {"method": "autoregressive_expert"},
    {"rule": "spec", "draft_length": 4},
    {"rule": "token_v3", "alpha": 0.3, "draft_length": 4},
    {"rule": "token_v3", "alpha": 0.8, "draft_length": 4},
)
CONFIG = {
    "task": {"name": "questions"},
    "pair": "p0<b>",
    "evaluate": {
        "settings": SETTINGS,
        "splits": {"validation": 8, "test": 8},
        "timing": {"num_examples": 2, "trials": 3},
    },
}
EVIL = "</script><script>alert('x')</script>"


def made(ms=(100, 80, 50, 25)):
    good, bad = [1.0] * 8, [1.0] * 4 + [0.0] * 4
    rows = []
    for split in ("validation", "test"):
        found = zip(SETTINGS, (good, good, good, bad), (1.0, 2.5, 3.0, 4.0), strict=True)
        for entry, scores, calls in found:
            row = synthetic.quality(entry, split, scores)
            rows.append({**row, "tokens_per_expert_call": calls})
        for entry, own in zip(SETTINGS, ms, strict=False):
            rows.append(synthetic.timing(entry, split, [own] * 2, [100] * 2))
    return collect(rows, CONFIG, "run it")


def test_a_sentence_says_what_is_saved_at_no_loss():
    (line,) = headline.sentences(made())
    # 0.8 is faster and has more tokens per call, and loses.
    assert line.startswith(
        "Temperature 0: token_v3 alpha=0.3 N=4 writes 3.00 tokens per expert call, lossless "
        "decoding (spec N=4) 2.50: +20 %."
    )
    assert "not told apart from the expert's by 8 test examples: +0.000 [+0.000, +0.000]." in line
    fastest = "The fastest of those, token_v3 alpha=0.3 N=4, has 2.00 [1.95, 2.05] times"
    assert line.endswith(f"{fastest} the expert's speed, faster.")


def test_it_says_where_no_time_is_saved_and_where_none_was_taken():
    (line,) = headline.sentences(made(ms=(100, 160, 200, 25)))
    assert line.endswith("spec N=4, has 0.62 [0.57, 0.68] times the expert's speed, slower.")
    (line,) = headline.sentences(made(ms=(100, 98, 200, 25)))
    assert line.endswith("[0.97, 1.07] times the expert's speed, not told apart from it.")
    (line,) = headline.sentences(made(ms=()))
    assert line.endswith("nothing on the validation examples it writes the most there.")


def test_in_brief_every_setting_has_three_figures():
    (table,) = headline.brief(made())
    assert table.columns[1:] == ("quality", "tokens per expert call", "speed over the expert's")
    assert [row[0] for row in table.rows][2:] == [
        "token_v3 alpha=0.3 N=4",
        "token_v3 alpha=0.8 N=4",
    ]
    assert table.rows[3][1:] == ["0.500 [0.125, 0.875]", "4.00", "4.00 [3.95, 4.05]"]


def test_figures_have_their_units():
    said = headline.units(made(), {"name": "questions", "metric": "rouge_2"})
    assert said.startswith("Quality: rouge_2, of 100, over 8 test examples; in brackets 95 %")
    assert said.endswith("over those of the expert alone, 2 examples timed.")
    said = headline.units(made(ms=()), {"name": "gsm_symbolic"})
    assert said.startswith("Quality: of gsm_symbolic, over 8") and "Speed" not in said


@pytest.fixture(scope="module")
def rendered():
    examples = [{"id": "7", "prompt": EVIL}, {"id": "8", "prompt": "b"}]
    answers = {
        "left one": [
            {"text": "it is 42, I think", "made": "5 tokens", "score": "1"},
            {"text": "same", "made": "1 tokens", "score": "1"},
        ],
        "right one": [
            {"text": "it is 41, I think", "made": "5 tokens", "score": "0"},
            {"text": "same", "made": "1 tokens", "score": "1"},
        ],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "kept", lambda *_: (examples, answers))
        return page.render(made(), "w", CONFIG, ())


def test_it_needs_nothing_else_and_text_stays_text(rendered):
    for forbidden in (r"https?:", r"\bsrc\s*=", r"\bhref\s*=", r"url\(", r"@import", r"<link"):
        assert not re.search(forbidden, rendered, re.IGNORECASE), forbidden
    assert "alert('x')</script>" not in rendered and "p0&lt;b&gt;" in rendered
    data = re.search(r'id="data">(.*?)</script>', rendered, re.DOTALL).group(1)
    assert json.loads(data)["examples"][0]["prompt"] == EVIL


def test_every_setting_is_a_row_and_a_mark_that_tells_its_figures(rendered):
    assert rendered.count('<tr><th scope="row">') == len(SETTINGS)
    cards = [json.loads(text) for text in cards_of(rendered)]
    assert [c["title"] for c in cards].count("token_v3 alpha=0.8 N=4, temperature 0") == 2
    figures = dict(next(c for c in cards if c["title"].startswith("token_v3 alpha=0.8"))["figures"])
    assert figures["speed-up"].startswith("4.00") and figures["quality"].startswith("0.500")
    places = re.findall(
        r'<(?:circle class="\w+" cx|polygon class="\w+" points)="([\d.-]+)', rendered
    )
    assert len(places) == len(cards) + rendered.count('<button type="button" aria-pressed')
    labels = set(re.findall(r'class="line" data-line="(.*?)"', rendered))
    assert labels == set(re.findall(r'aria-pressed="false" data-line="(.*?)"', rendered))


def cards_of(text):
    return [html.unescape(card) for card in re.findall(r'data-card="(.*?)"', text)]


@pytest.mark.skipif(not shutil.which("node"), reason="no node found")
def test_the_script_parses(rendered, tmp_path):
    script = re.search(r"<script>(.*?)</script>", rendered, re.DOTALL).group(1)
    path = tmp_path / "page.js"
    path.write_text(script)
    done = subprocess.run(["node", "--check", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium found")
def test_a_browser_sorts_filters_and_compares(rendered, tmp_path):
    probe = """
window.addEventListener("load", () => {
  const headings = [...document.querySelectorAll("thead button")];
  const first = () => document.querySelector("tbody tr:not([hidden]) th").textContent;
  const seen = { answers: document.getElementById("count").textContent };
  seen.marked = [...document.querySelectorAll("mark")].map((m) => m.textContent);
  headings.find((h) => h.textContent === "speed-up").click();
  seen.fastest = first();
  headings.find((h) => h.textContent === "speed-up").click();
  seen.slowest = first();
  const filter = document.getElementById("filter");
  filter.value = "alpha=0.3";
  filter.dispatchEvent(new Event("input"));
  seen.filtered = [...document.querySelectorAll("tbody tr:not([hidden])")].length;
  const point = document.querySelector(".point");
  point.focus();
  seen.card = document.getElementById("card").textContent;
  document.querySelector(".legend button").click();
  seen.faint = document.querySelectorAll(".one .line:not(.chosen)").length;
  document.title = JSON.stringify(seen);
});
"""
    own = base64.b64encode(hashlib.sha256(probe.encode()).digest()).decode()
    text = rendered.replace("script-src ", f"script-src 'sha256-{own}' ")
    path = tmp_path / "page.html"
    path.write_text(text.replace("</body>", f"<script>{probe}</script></body>"))
    dom = browse(path, tmp_path / "profile", "--dump-dom")
    seen = json.loads(re.search(r"<title>(.*?)</title>", dom).group(1).replace("&amp;", "&"))
    assert seen["answers"] == "1 of the first 2 answers differ."
    assert seen["marked"] == ["2", "1"]
    assert "alpha=0.8" in seen["fastest"] and seen["slowest"] == "autoregressive_expert"
    assert seen["filtered"] == 1 and seen["faint"] > 0 and "quality" in seen["card"]


def test_answers_beyond_what_a_row_scores_are_left_out(monkeypatch):
    examples = [Example(i, f"p{i}", "", "") for i in range(3)]
    own = [
        {**quality.asked(e), "text": "t", "tokens": [1], "counts": {"expert_calls": 1}}
        for e in examples
    ]
    few, many = ({"method": name} for name in ("autoregressive_drafter", "autoregressive_expert"))
    rows = [
        {**synthetic.quality(entry, "test", [1.0] * n), "answers": "a"}
        for entry, n in ((few, 2), (many, 3))
    ]
    monkeypatch.setattr(answers, "answered", lambda *_: rows)
    monkeypatch.setattr(answers, "_examples", lambda *_: examples)
    monkeypatch.setattr(answers.answers, "read", lambda *_: own)
    _, found = answers.kept("w", CONFIG, "test", 40)
    given = [[answer is not None for answer in each] for each in found.values()]
    assert given == [[True, True, False], [True, True, True]]
