import io
import re

from speccascade.trace import Kind, display, terminal
from tests.trace import toy_traces

SGR = re.compile(r"\x1b\[[\d;]*m")


def answers(text):
    """Returns the lines of the answers: indented, with no table's numbers, after a heading."""
    return text.split("tokens per expert call\n")[1:]


def test_every_rule_is_shown_with_all_its_tokens():
    comparison = toy_traces.comparison()
    text = terminal.render(comparison, colour=False)
    assert len(answers(text)) == len(comparison.traces)
    for part, trace in zip(answers(text), comparison.traces, strict=True):
        table = part[part.index("block  token") :]
        rows = [row for row in table.split("\n\n")[0].splitlines()[1:] if row.strip()]
        assert len(rows) == len(trace.tokens) + len(trace.discarded)
        for kind, count in display.counts(trace).items():
            if kind is not Kind.KEPT:  # its name has no marks around it
                before, after = terminal._MARKS[kind]
                shown = f"{before}{display.NAMES[kind]}{after}"
                assert sum(shown in row for row in rows) == count
        cuts = sum(block.strict_cut is not None for block in trace.blocks)
        assert part[: part.index("block  token")].count("✂") == cuts


def test_colours_and_marks_say_the_same():
    comparison = toy_traces.comparison()
    plain = terminal.render(comparison, colour=False, width=10_000)
    coloured = terminal.render(comparison, colour=True, width=10_000)
    assert "\x1b" not in plain and "\x1b[48;2;" in coloured
    marks = re.compile(r"[~\[\]{}<>-]|\s+")
    assert marks.sub("", SGR.sub("", coloured)) == marks.sub("", plain)


def test_what_a_model_or_a_prompt_writes_cannot_steer_the_terminal():
    text = terminal.render(toy_traces.comparison(), colour=True)
    assert "\x1b" not in SGR.sub("", text)
    assert "\\u001b[31m" in text


def test_lines_fit():
    text = terminal.render(toy_traces.comparison(), colour=False, numbers=False, width=40)
    flows = [part.split("\n\n")[1] for part in answers(text)]
    assert max(len(line) for flow in flows for line in flow.splitlines()) <= 40
    assert "block  token" not in text


def test_colour_is_for_terminals_that_want_it(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.wants_colour(Terminal()) and not terminal.wants_colour(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not terminal.wants_colour(Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not terminal.wants_colour(Terminal())


def test_numbers():
    assert [display.number(x) for x in (None, 0.0, 1.0, 0.25, 2e-5, 1e-12)] == [
        "–",
        "0.000",
        "1.000",
        "0.250",
        "2e-5",
        "1e-12",
    ]
