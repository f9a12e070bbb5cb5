"""Behind `scripts/replay.py`: from what is named on the command line to tables."""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from speccascade import rules
from speccascade.errors import UserError
from speccascade.inference import metrics
from speccascade.inference.reading import setting
from speccascade.inference.setting import Setting
from speccascade.inputs import paths, plain_text, text_files, values
from speccascade.knobs import HeadKnob
from speccascade.replay import blocks, positions, sources
from speccascade.replay.between import Between
from speccascade.replay.positions import Positions
from speccascade.replay.sources import Source
from speccascade.report.table import NOTHING, Table, markdown

ALL = "all"


@dataclasses.dataclass(frozen=True)
class Options:
    """What is asked for; names are those of the flags.

    Attributes:
      rules: by name, or "all"; without any those that the workdir measured, of a file all.
      alphas: of rules that have an alpha.
      draft_lengths: of blocks.
      temperature: None for that of the answers, of a file 0.
      knobs: JSON object of further fields of settings.
      split: of a workdir.
      out: a file for what was found position by position; None for none.
    """

    rules: Sequence[str] = ()
    alphas: Sequence[float] = (0.1, 0.3, 0.5)
    draft_lengths: Sequence[int] = (4,)
    temperature: float | None = None
    knobs: str = "{}"
    split: str = "test"
    out: str | None = None


def from_flags(*, alphas: Sequence[str], draft_lengths: Sequence[str], **options: Any) -> Options:
    """Returns the options of texts from the command line.

    Raises:
      UserError: one of them is no number.
    """
    read = {
        "alphas": ("--alpha", alphas, float),
        "draft_lengths": ("--draft_length", draft_lengths, int),
    }
    for name, (flag, texts, kind) in read.items():
        try:
            options[name] = tuple(kind(text) for text in texts)
        except ValueError:
            what = "a number" if kind is float else "a whole number"
            raise UserError(
                f"{flag}={','.join(texts)} must be {what}, or several with commas between"
            ) from None
    return Options(**options)


def replay(source: str, options: Options) -> str:
    """Returns what rules do at saved positions, as Markdown.

    Args:
      source: see `sources.read`.
      options: how.

    Raises:
      UserError: something cannot be read or replayed; nothing is written then.
    """
    out = options.out and paths.on_disk(options.out, "what was replayed")
    tables: list[Table] = []
    records: list[dict[str, Any]] = []
    for one in sources.read(source, options.split):
        settings = _settings(one, options)
        told = list(positions.replay(one.answers, settings))
        rows = []
        for i, chosen in enumerate(settings):
            own = [answer[i] for answer in told]
            calls = [_calls(each, chosen) for each in own]
            rows.append(_row(one, chosen, own, calls))
            if out:
                records += _records(one, chosen, own, calls)
        tables.append(Table(_title(one), _COLUMNS, rows))
    if out:
        _write(out, records)
    return markdown(tables, _NOTES)


# ---- settings ----


def _settings(source: Source, options: Options) -> list[Setting]:
    measured = list(source.measured)
    temperature = options.temperature
    if temperature is None:
        temperature = source.setting.temperature if source.setting else 0.0
    if measured and not options.rules:
        own = [s for s in measured if s.temperature == temperature]
        if not own:
            raise UserError(
                f"no rule was measured at temperature {temperature:g}; give --rules some, or {ALL}"
            )
        return own
    more = text_files.parse_object(options.knobs, f"--knobs={options.knobs}")
    names = plain_text.several(options.rules or ALL, "--rules")
    own_knobs = {key for row in rules.RULES.values() for key in row.knobs}
    found: dict[Setting, None] = {}
    for name in _every(more) if ALL in names else names:
        has = rules.definition(name).knobs
        given = {k: v for k, v in more.items() if k in has or k not in own_knobs}
        alphas = options.alphas if "alpha" in has and "alpha" not in more else [None]
        for length in values.wholes("--draft_length", options.draft_lengths, 1):
            for alpha in alphas:
                entry = {"rule": name, "draft_length": length, "temperature": temperature, **given}
                found[setting(entry if alpha is None else {**entry, "alpha": alpha})] = None
    for chosen in found:
        if not sources.can_be_replayed(chosen):
            raise UserError(
                f"setting {chosen} cannot be replayed: saved are distributions of the expert and "
                "the pair's drafter, of which a rule makes a target; leave method, drafter and "
                "middle_rule out of --knobs"
            )
    return list(found)


def _every(given: Mapping[str, Any]) -> list[str]:
    """Returns all rules that need no head, or whose head is given."""
    return [
        name
        for name, row in rules.RULES.items()
        if all(key in given for key, knob in row.knobs.items() if isinstance(knob, HeadKnob))
    ]


# ---- figures ----


def _calls(own: Positions, chosen: Setting) -> tuple[float, float] | None:
    """Returns the fewest and the most blocks of an answer; None where a block is judged whole."""
    if chosen.verifier != "token":
        return None
    low, high = (
        blocks.expected(chance, own.ends, chosen.draft_length).calls for chance in own.rejection
    )
    return low, high


def _mean(parts: Sequence[Between]) -> Between:
    return Between(*(np.asarray(np.concatenate(side).mean()) for side in zip(*parts, strict=True)))


_COLUMNS = (
    "setting",
    "rejected",
    "deferred",
    "tokens per expert call",
    "decoded",
    "difference",
)
_NOTES = (
    "rejected: TV(pi, q), the chance that a draft is rejected, the mean over all recorded "
    "positions; deferred: the mass that the rule leaves to the expert there. Where two figures "
    "stand, the truth lies between them.",
    "tokens per expert call: an estimate, blocks laid over the recorded text, with its interval "
    "over answers; decoding with the rule meets other prefixes. Beside it what decoding measured "
    "in this workdir, and how much more the estimate says.",
)


def _row(
    source: Source, chosen: Setting, own: Sequence[Positions], calls: Sequence
) -> tuple[str, ...]:
    rejected = _mean([each.rejection for each in own])
    deferred = _mean([each.deferral for each in own])
    estimate, told = None, NOTHING
    if calls[0] is not None:
        tokens = np.array([len(answer.tokens) for answer in source.answers], np.float64)
        fewest, most = np.transpose(calls)
        estimate = Between(_ratio(tokens, most), _ratio(tokens, fewest))
        low, high = (
            metrics.bootstrap(_ratio, tokens, side)[i] for i, side in ((0, most), (1, fewest))
        )
        told = f"{_shown(estimate, '.2f')} [{low:.2f}, {high:.2f}]"
    decoded = source.measured.get(chosen)
    difference = None
    if estimate and decoded:
        difference = Between(estimate.low - decoded, estimate.high - decoded)
    return (
        f"`{chosen}`",
        _shown(rejected, ".3f"),
        _shown(deferred, ".3f"),
        told,
        NOTHING if decoded is None else f"{decoded:.2f}",
        _shown(difference, "+.2f"),
    )


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return above.sum(-1) / below.sum(-1)


def _shown(of: Between | None, how: str) -> str:
    if of is None or np.isnan(of.low):
        return NOTHING
    low, high = (format(0.0 if float(format(x, how)) == 0 else x, how) for x in of)
    return low if low == high else f"{low} to {high}"


def _title(source: Source) -> str:
    first = source.answers[0]
    count = sum(len(answer.tokens) for answer in source.answers)
    kept = "all" if first.top is None else f"the {first.top} most probable"
    return (
        f"Answers of {source.name}: {len(source.answers)} with {count:,} positions, {kept} of "
        f"{first.vocab_size:,} tokens saved"
    )


# ---- position by position ----


def _records(
    source: Source, chosen: Setting, own: Sequence[Positions], calls: Sequence
) -> Iterator[dict[str, Any]]:
    for answer, each, blocks_of in zip(source.answers, own, calls, strict=True):
        yield {
            "answers": source.name,
            "setting": str(chosen),
            "id": answer.id,
            **_fields("rejection", each.rejection),
            **_fields("deferral", each.deferral),
            "expert_calls": blocks_of and [round(x, 6) for x in blocks_of],
        }


def _fields(name: str, of: Between) -> dict[str, Any]:
    if np.isnan(of.low).any():
        return {}
    return {f"{name}_{side}": np.round(x, 6).tolist() for side, x in of._asdict().items()}


def _write(path: str, records: Sequence[Mapping[str, Any]]) -> None:
    partial = f"{path}.partial"
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"cannot write to --out={path}: {error.strerror}") from None
