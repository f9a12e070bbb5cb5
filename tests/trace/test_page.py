"""The page: self-contained, escaped, and as a browser sees it."""

import html
import html.parser
import importlib.resources
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from speccascade import pairs
from speccascade.errors import UserError
from speccascade.trace import Kind, display, page
from tests import called
from tests.browser import CHROMIUM, browse
from tests.trace import toy_traces

ROOT = pathlib.Path(__file__).parent.parent.parent
class Elements(html.parser.HTMLParser):
    """Collects elements with their attributes, and each token's text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts, self._open = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.found.append((tag, attributes))
        if "data-card" in attributes:
            self.texts.append("")
            self._open = 1
        elif self._open and tag == "span":
            self._open += 1

    def handle_endtag(self, tag):
        if self._open and tag == "span":
            self._open -= 1

    def handle_data(self, data):
        if self._open:
            self.texts[-1] += data

    def cards(self):
        return [json.loads(a["data-card"]) for _, a in self.found if "data-card" in a]


@pytest.fixture(scope="module")
def rendered():
    return page.render(toy_traces.comparison())


def test_all_tokens_are_there_with_their_numbers(rendered):
    elements = Elements(rendered)
    tokens = [
        (block, token)
        for trace in toy_traces.comparison().traces
        for block in trace.blocks
        for token in (*block.tokens, *block.discarded)
    ]
    for (block, token), card, text in zip(tokens, elements.cards(), elements.texts, strict=True):
        assert card["text"] == display.visible(token)
        assert text.replace("\n", "") == display.visible(token)
        assert card["kind"] == token.kind
        assert [value for *_, value, _ in card["bars"]] == [token.q, token.p, token.pi]
        labels = dict(card["details"])
        assert ("kept with chance" in labels) == token.drafted
        assert ("in place of" in labels) == (token.kind is Kind.REPLACED)
        if token.kind is Kind.RULE:
            assert labels["strict verification"].startswith(display.strict_says(block, token))
    cuts = [a for _, a in elements.found if a.get("class") == "cut"]
    blocks = [block for trace in toy_traces.comparison().traces for block in trace.blocks]
    assert len(cuts) - 1 == sum(block.strict_cut is not None for block in blocks) > 0
    assert {card["kind"] for card in elements.cards()} == set(Kind)


def test_it_needs_nothing_else(rendered):
    for forbidden in (r"https?:", r"\bsrc\s*=", r"\bhref\s*=", r"url\(", r"@import", r"<link"):
        assert not re.search(forbidden, rendered, re.IGNORECASE), forbidden
    assert "default-src 'none'" in rendered


def test_text_stays_text(rendered):
    assert rendered.count("<script>") == 1 and "alert('" not in rendered
    assert html.escape("</title><script>alert(") in rendered
    assert not any(name.startswith("on") for _, a in Elements(rendered).found for name in a)


def test_the_policy_names_the_script(rendered):
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}'", rendered)


def test_the_parts_are_installed_with_the_package():
    found = {p.name for p in importlib.resources.files("speccascade.trace").iterdir()}
    assert {"page.html", "page.css", "page.js"} <= found
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "trace/page.*" in project["tool"]["setuptools"]["package-data"]["speccascade"]


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium found")
def test_a_browser_shows_it(rendered, tmp_path):
    path = tmp_path / "page.html"
    # Behind the page's own script, and allowed by the same policy, one that uses it as a reader
    # does and writes down what it sees.
    probe = """
window.addEventListener("load", () => {
  const tokens = [...document.querySelectorAll(".answer .t")];
  const visible = (token) => token.getClientRects().length > 0;
  const seen = { before: tokens.filter(visible).length, cards: [] };
  tokens.filter(visible)[1].dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  seen.cards.push([card.hidden, card.innerText]);
  document.querySelector("#gone").click();
  seen.after = tokens.filter(visible).length;
  tokens[0].focus();
  tokens[0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  seen.focused = tokens.indexOf(document.activeElement);
  seen.described = document.activeElement.getAttribute("aria-describedby");
  const box = card.getBoundingClientRect();
  seen.inside = box.left >= 0 && box.right <= innerWidth && box.bottom <= innerHeight;
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  seen.hidden = card.hidden;
  seen.wide = document.documentElement.scrollWidth <= innerWidth;
  document.body.dataset.seen = JSON.stringify(seen);
});
"""
    import base64
    import hashlib

    digest = base64.b64encode(hashlib.sha256(probe.encode()).digest()).decode()
    path.write_text(
        rendered.replace("script-src ", f"script-src 'sha256-{digest}' ").replace(
            "</body>", f"<script>{probe}</script></body>"
        )
    )
    traces = toy_traces.comparison().traces
    kept = sum(len(trace.tokens) for trace in traces)
    every = kept + sum(len(trace.discarded) for trace in traces)
    for width in (1300, 500):
        dom = browse(path, tmp_path / str(width), "--dump-dom", f"--window-size={width},900")
        elements = Elements(dom)
        [seen] = [json.loads(a["data-seen"]) for tag, a in elements.found if "data-seen" in a]
        assert (seen["before"], seen["after"]) == (kept, every)
        hidden, text = seen["cards"][0]
        assert not hidden and "drafter q" in text and "expert p" in text and "target π" in text
        assert seen["focused"] == 1 and seen["described"] == "card"
        assert seen["inside"] and seen["wide"] and seen["hidden"]
        assert len(elements.cards()) == every


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium found")
def test_a_browser_draws_it(rendered, tmp_path):
    path, picture = tmp_path / "page.html", tmp_path / "page.png"
    path.write_text(rendered)
    browse(path, tmp_path / "profile", f"--screenshot={picture}", "--window-size=1300,900")
    from matplotlib import image

    pixels = image.imread(picture)[..., :3]
    assert pixels.shape == (900, 1300, 3)
    # The kinds' colours are on it: their bars are as saturated as their legend says.
    for colour in ("#56b4e9", "#e69f00", "#cc79a7", "#009e73"):
        wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (abs(pixels - wanted).max(-1) < 0.02).sum() > 20, colour


def test_the_script(tmp_path):
    pairs.export(toy_traces.pair(), str(tmp_path), {})
    file = tmp_path / "page.html"
    config = f"--config={ROOT}/tests/tiny_pair.py:{tmp_path}"
    # Of the comparison's shapes: what is compiled is shared.
    common = (f"--prompt={'How many? ' * 6}", "--draft_length=3", "--max_new_tokens=24")
    rules = ("--rules=spec,token_v3,token_v3", "--alpha=0.3,0.5", "--temperature=1")
    done = subprocess.run(
        [sys.executable, "scripts/trace.py", config, *common, *rules, f"--html={file}"],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONIOENCODING": "ascii",  # what the terminal cannot show must not end the script
            "JAX_NUM_CPU_DEVICES": "8",  # as many as here, so that it finds what was compiled
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for heading in ("spec: ", "token_v3 alpha=0.3: ", "token_v3 alpha=0.5: "):
        assert f"\n{heading}" in done.stdout
    assert "\x1b" not in done.stdout and str(file) in done.stdout
    assert Elements(file.read_text()).cards()
    with pytest.raises(UserError, match="needs alpha"):
        called.call("scripts/trace.py", config, *common, "--rules=opt")
