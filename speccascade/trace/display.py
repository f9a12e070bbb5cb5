"""What terminal and page say alike: names, legends, one-line summaries, text made visible."""

import unicodedata

from speccascade.trace.record import Block, Kind, Piece, Reason, Token
from speccascade.trace.tracing import Comparison, Trace

NAMES = {
    Kind.KEPT: "kept draft",
    Kind.DEFERRED: "deferred and kept",
    Kind.RULE: "kept by the rule",
    Kind.REPLACED: "replaced",
    Kind.BONUS: "bonus",
    Kind.DISCARDED: "thrown away",
}
LEGEND = {
    Kind.KEPT: "strict verification keeps it too",
    Kind.DEFERRED: "the rule asked the expert, who agreed",
    Kind.RULE: "strict verification had cut here or before",
    Kind.REPLACED: "drawn anew where a draft token was rejected",
    Kind.BONUS: "drawn after a draft that was kept whole",
    Kind.DISCARDED: "drafted in vain",
}
CUT = "strict verification would have cut the draft here"
REASONS = {
    Reason.REJECTED: "rejected",
    Reason.AFTER: "behind a rejected token",
    Reason.END: "behind the end of the answer",
}
_STAND_INS = {"\n": "↵", "\t": "⇥", "\r": "␍"}


def visible(token: Piece) -> str:
    """Returns a token's text on one line, with stand-ins for what cannot be seen.

    A token that completes no character shows its bytes, one without bytes its id or that it ends
    the answer.
    """
    if token.text:
        return line(token.text)
    if token.data:
        return "".join(f"\\x{byte:02x}" for byte in token.data)
    return "‹end›" if token.ends else f"‹id {token.id}›"


def details(block: Block, token: Token) -> list[tuple[str, str]]:
    """Returns what there is to say about a token beside q, p and pi: label and text of each."""
    if token.drafted:
        chance = number(token.accept)
        if token.draw is not None:
            chance += f", and the draw was {token.draw:.3f}"
        found = [("kept with chance", chance)]
    elif token.kind is Kind.REPLACED:
        drafted = next(t for t in block.discarded if t.reason is Reason.REJECTED)
        chance = f"“{visible(drafted)}”, which was kept with chance {number(drafted.accept)}"
        found = [("in place of", chance)]
        if drafted.strict_keeps:
            found.append(("strict verification", "keeps the drafted token"))
    else:
        found = [("drawn from", f"π, after all {block.drafted} draft tokens")]
    if token.reason is not None:
        found.append(("thrown away", REASONS[token.reason]))
    if (says := strict_says(block, token)) is not None and token.reason is not Reason.AFTER:
        found.append(
            ("strict verification", f"{says} (chance to keep it {number(token.strict_accept)})")
        )
    if token.deferral is not None:
        asked = {True: "this token, ", False: "not this token, ", None: ""}[token.deferred]
        found.append(("deferred", f"{asked}{number(token.deferral)} of q in all"))
    return found


def remark(block: Block, token: Token) -> str:
    """Returns what is worth saying beside a token's numbers; nothing where nothing is."""
    if token.reason is Reason.REJECTED and token.strict_keeps:
        return "rejected; strict verification keeps it"
    if token.reason is not None:
        return REASONS[token.reason]
    if token.kind is Kind.RULE:
        return f"strict verification {strict_says(block, token)}"
    return ""


def line(text: str) -> str:
    """Returns text on one line, with stand-ins for what cannot be seen."""
    return "".join(_STAND_INS.get(c) or _plain(c) for c in text)


def _plain(c: str) -> str:
    """Returns a character, or its code where it would steer the terminal or turn text around."""
    if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") and c != "\u200d":
        return f"\\u{ord(c):04x}"
    return c


def number(value: float | None) -> str:
    """Returns a probability as text."""
    if value is None:
        return "–"
    if 0 < value < 5e-4:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:.3f}"


def title(trace: Trace) -> str:
    """Returns the rule with its knobs."""
    s = trace.setting
    limits = s.drafter_truncation + s.expert_truncation
    return " ".join([s.label, *(f"{k}={v:g}" for k, v in s.knobs + limits)])


def common(comparison: Comparison) -> str:
    """Returns what all settings share."""
    s = comparison.traces[0].setting
    heat = f"temperature {s.temperature:g}" + (f", seed {s.seed}" if s.temperature > 0 else "")
    if s.temperature == 0:
        heat += " (greedy)"
    cut = comparison.prompt_cut
    return (
        f"{s.draft_length} tokens per draft, {s.verifier} verifier, {heat}, "
        f"at most {comparison.max_new_tokens} new tokens"
        + (f"; the prompt was cut by {_plural(cut, 'token')}" if cut else "")
    )


def rate(trace: Trace) -> str:
    """Returns the tokens per expert call."""
    return f"{trace.statistics['tokens_per_expert_call']:.2f}"


def counts(trace: Trace) -> dict[Kind, int]:
    """Returns how many tokens there are of each kind."""
    tokens = trace.tokens + trace.discarded
    return {kind: sum(token.kind is kind for token in tokens) for kind in Kind}


def facts(comparison: Comparison, trace: Trace) -> list[str]:
    """Returns the statistics of a trace, as phrases."""
    s = trace.statistics
    own = counts(trace)
    found = [
        _plural(s["tokens"], "token"),
        _plural(s["expert_calls"], "expert call"),
        *(
            _plural(count, name.replace("_calls", " call"))
            for name, count in s.items()
            if name.endswith("_calls") and name != "expert_calls" and count
        ),
        f"{own[Kind.DISCARDED]} drafted in vain",
    ]
    cuts = sum(block.strict_cut is not None for block in trace.blocks)
    if cuts:
        found.append(
            f"strict verification would have cut {_plural(cuts, 'draft')} that "
            f"{'stays' if cuts == 1 else 'stay'}, {_plural(own[Kind.RULE], 'token')} in all"
        )
    if s["rejection_rate"] is not None:
        found.append(f"rejection rate {s['rejection_rate']:.3f}")
    if s["deferral_rate"] is not None:
        found.append(f"deferral rate {s['deferral_rate']:.3f}")
    if not trace.finished:
        found.append("no room was left for more")
    if (other := against_first(comparison, trace)) is not None:
        found.append(other)
    return found


def against_first(comparison: Comparison, trace: Trace) -> str | None:
    """Returns how the answer compares with the first setting's, None for that itself."""
    first = comparison.traces[0]
    if trace is first:
        return None
    at = comparison.parts_at(trace)
    name = first.setting.label
    return f"same answer as {name}" if at is None else f"leaves {name}'s answer at token {at + 1}"


def strict_says(block: Block, token: Token) -> str | None:
    """Returns what strict verification does with a draft token; None for one not drafted."""
    if not token.drafted:
        return None
    if token.strict_keeps:
        return "keeps it"
    if token.offset == block.strict_kept:
        return f"cuts here and writes “{visible(block.strict_next)}”"
    return f"had cut the draft {_plural(token.offset - block.strict_kept, 'token')} before"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
