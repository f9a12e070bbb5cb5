"""A comparison as one self-contained web page.

`page.html`, `page.css` and `page.js` beside this file are its parts. All text is made here; the
script only shows it.
"""

import html
import json

from speccascade import web
from speccascade.trace import display
from speccascade.trace.display import NAMES, number
from speccascade.trace.record import Block, Kind, Token
from speccascade.trace.tracing import Comparison, Trace


def render(comparison: Comparison) -> str:
    """Returns the page."""
    return web.fill(
        __package__,
        title=f"Who wrote it: {html.escape(comparison.pair)}",
        pair=html.escape(comparison.pair),
        prompt=html.escape(comparison.prompt.strip()),
        settings=html.escape(display.common(comparison)),
        legend=_legend(),
        columns="\n".join(
            _column(comparison, trace, i) for i, trace in enumerate(comparison.traces)
        ),
    )


def _legend() -> str:
    rows = [
        f'<li><span class="t {kind}">{NAMES[kind]}</span> <span>{display.LEGEND[kind]}</span></li>'
        for kind in Kind
    ]
    rows.append(f'<li><span class="cut"></span> <span>{display.CUT}</span></li>')
    rows.append('<li><span class="mark">1</span> <span>a block: one call of the expert</span></li>')
    return "\n".join(rows)


def _column(comparison: Comparison, trace: Trace, index: int) -> str:
    facts = "".join(f"<li>{html.escape(fact)}</li>" for fact in display.facts(comparison, trace))
    numbered = enumerate(trace.blocks, 1)
    blocks = "".join(_block(count, block) for count, block in numbered)
    heading = html.escape(display.title(trace))
    return f"""<article aria-labelledby="rule-{index}">
<h2 id="rule-{index}">{heading}</h2>
<p class="rate"><b>{display.rate(trace)}</b> tokens per expert call</p>
{_shares(trace)}
<div class="answer" role="group" aria-label="answer, token by token">{blocks}</div>
<ul class="facts">{facts}</ul>
</article>"""


def _shares(trace: Trace) -> str:
    """Returns a bar of how many tokens of the answer are of each kind."""
    counts = {kind: count for kind, count in display.counts(trace).items() if count}
    counts.pop(Kind.DISCARDED, None)
    parts = "".join(
        f'<span class="{kind}" style="flex-grow:{count}"></span>' for kind, count in counts.items()
    )
    label = ", ".join(f"{count} {NAMES[kind]}" for kind, count in counts.items())
    return f'<div class="shares" role="img" aria-label="{label}" title="{label}">{parts}</div>'


def _block(count: int, block: Block) -> str:
    written = "".join(
        ('<span class="cut"></span>' if token.offset == block.strict_cut else "")
        + _token(count, block, token)
        for token in block.tokens
    )
    # Where the draft was cut, before what stands in its place.
    gone = "".join(_token(count, block, token) for token in block.discarded)
    return f'<span class="block" data-n="{count}">{written}{gone}</span>'


def _token(count: int, block: Block, token: Token) -> str:
    card = {
        "text": display.visible(token),
        "kind": token.kind,
        "name": NAMES[token.kind],
        "bars": [
            [label, symbol, value, number(value)]
            for label, symbol, value in (
                ("drafter", "q", token.q),
                ("expert", "p", token.p),
                ("target", "π", token.pi),
            )
        ],
        "details": display.details(block, token),
        "place": f"block {count}, position {token.offset + 1}",
    }
    data = html.escape(json.dumps(card, ensure_ascii=False, allow_nan=False))
    return (
        f'<span class="t {token.kind}" role="button" tabindex="-1" data-card="{data}">'
        f"{_text(token)}</span>"
    )


def _text(token: Token) -> str:
    """Returns a token's text; line ends show a sign and then end the line."""
    if not token.text:
        return f'<span class="sign">{html.escape(display.visible(token))}</span>'
    lines = [html.escape(display.line(part)) for part in token.text.split("\n")]
    return '<span class="sign">↵</span><span class="end">\n</span>'.join(lines)
