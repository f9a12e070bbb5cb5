"""What both models say at every token of answers: `distributions/NAME.jsonl.gz`, or another's file.

JSON lines, plain or gzipped, one answer a line; every array goes by the answer's tokens:

    id          the answer's
    vocab_size  V
    tokens      [A] ids, an end-of-sequence included
    pair, tokenizer
                whose the distributions are, as rows of results have it; may be left out
    top         of listed distributions: the `top` most probable tokens are among those listed
    drafter, expert
                each model's distributions at temperature 1, given the prompt and the tokens before:
      ids, logprobs  [A][K] listed tokens and their log-probabilities; K may differ by position
      rest           [A] the mass of all others; if left out, one less the listed, to 1e-6
      entropy        [A] in nats; if left out, bounds are made of what is listed
      chosen         [A] the most probable token; if left out, that of those listed

Whole distributions have neither `top` nor `ids`, and their `logprobs` are one text: base64 of
float32 [A, V], little-endian.
"""

import base64
import binascii
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from speccascade.errors import UserError
from speccascade.inputs import plain_text, text_files, values

Array = np.ndarray | jax.Array

FOLDER = "distributions"
MADE_BY = ("pair", "tokenizer")
MODELS = ("drafter", "expert")
# JSON has no infinity: so a token that a model cannot write is listed.
NEVER = -9999.0

_SUM = 1e-3  # by which masses may miss one: engines round log-probabilities
_ROUNDING = 1e-6  # of float32 numbers whose sum is taken from one


class Whole(NamedTuple):
    """One model's distributions, whole.

    Attributes:
      logprobs: float32 [A, V].
      chosen: int64 [A], the most probable token.
    """

    logprobs: np.ndarray
    chosen: np.ndarray


class Listed(NamedTuple):
    """One model's distributions, of which some tokens are listed.

    Attributes:
      ids: int64 [A, K]; -1 where a position has fewer.
      probs: float64 [A, K], at temperature 1; 0 there.
      rest_low: float64 [A], the mass of all others is at least so much.
      rest_high: float64 [A], and at most so much.
      entropy: float64 [A], in nats; NaN where it is not known.
      chosen: int64 [A], the most probable token.
    """

    ids: np.ndarray
    probs: np.ndarray
    rest_low: np.ndarray
    rest_high: np.ndarray
    entropy: np.ndarray
    chosen: np.ndarray


class Recorded(NamedTuple):
    """What was recorded of one answer.

    Attributes:
      id: as text.
      tokens: int64 [A].
      vocab_size: V.
      top: so many most probable tokens are listed for sure; None where all are.
      drafter: its distributions.
      expert: likewise.
      made_by: the pair's and the tokenizer's hashes by these names, as far as they are known.
    """

    id: str
    tokens: np.ndarray
    vocab_size: int
    top: int | None
    drafter: Whole | Listed
    expert: Whole | Listed
    made_by: Mapping[str, str]


# ---- writing ----


def whole_fields(logprobs: Array) -> dict[str, Any]:
    """Returns a model's fields of a row, for float32 [A, V]."""
    own = np.ascontiguousarray(logprobs, "<f4")
    data = base64.b64encode(own.tobytes()).decode()
    return {"logprobs": data, "chosen": own.argmax(1).tolist()}


def listed_fields(
    ids: Sequence[Array],
    logprobs: Sequence[Array],
    rest: Array,
    entropy: Array,
    chosen: Array,
) -> dict[str, Any]:
    """Returns a model's fields of a row; arrays of float32 are written to their last digit."""
    return {
        "ids": [[int(i) for i in row] for row in ids],
        "logprobs": [_floats(row) for row in logprobs],
        "rest": _floats(rest),
        "entropy": _floats(entropy),
        "chosen": [int(i) for i in chosen],
    }


def _floats(numbers: Array) -> list[float]:
    return [float(f"{max(x, NEVER):.9g}") for x in numbers]


# ---- reading ----


def read(
    path: text_files.Path, made_by: Mapping[str, str] = types.MappingProxyType({})
) -> Iterator[Recorded]:
    """Yields the answers of a file.

    Args:
      path: of the file.
      made_by: whose answers must be, as far as both say; none for anybody's, but of one pair.

    Raises:
      UserError: it is missing, cut short, or an answer is not as it must be, is there twice or of
        another vocabulary, pair or tokenizer than those before.
    """
    seen: dict[str, int] = {}
    first = None
    known = dict(made_by)
    for line, row in text_files.read_rows(path):
        try:
            found = from_row(row)
            if found.id in seen:
                raise UserError(f"id {found.id} stands in line {seen[found.id]}; keep one of them")
            kind = found.vocab_size, found.top
            if first is not None and kind != first:
                raise UserError(
                    f"{_kind(*kind)}, and the answers before it {_kind(*first)}; replay those of "
                    "one tokenizer and one recording at a time"
                )
            for name, value in found.made_by.items():
                if known.setdefault(name, value) != value:
                    raise UserError(
                        f"it is of {name} {value}, and the answers before it or the workdir's rows "
                        f"are of {known[name]}; replay those of one pair at a time"
                    )
        except UserError as error:
            raise UserError(f"{path} line {line}: {error}") from None
        seen[found.id], first = line, kind
        yield found
    if not seen:
        raise UserError(f"{path} has no answers")


def _kind(vocab_size: int, top: int | None) -> str:
    return f"{vocab_size} tokens, " + ("all of them saved" if top is None else f"top {top} saved")


def from_row(row: Mapping[str, Any]) -> Recorded:
    """Returns what a row holds.

    Raises:
      UserError: a field is missing or not as it must be.
    """
    _need(row, ("id", "vocab_size", "tokens", *MODELS))
    if isinstance(row["id"], bool) or not isinstance(row["id"], int | str):
        raise UserError(f"id={plain_text.show(row['id'])} must be a whole number or a text")
    size = values.whole("vocab_size", row["vocab_size"], 1)
    tokens = _ids("tokens", row["tokens"], size)
    top = None
    if "top" in row:
        top = values.whole("top", row["top"], 1)
        if top > size:
            raise UserError(f"top={top} is more than vocab_size={size}")
    models = {}
    for name in MODELS:
        given = row[name]
        if not isinstance(given, Mapping):
            raise UserError(f"{name} must be an object, not {plain_text.show(given)}")
        try:
            models[name] = (
                _whole(given, len(tokens), size)
                if top is None
                else _listed(given, len(tokens), size, top)
            )
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
    made_by = {name: row[name] for name in MADE_BY if row.get(name) is not None}
    for name, value in made_by.items():
        if not isinstance(value, str):
            raise UserError(f"{name}={plain_text.show(value)} must be a text")
    return Recorded(str(row["id"]), tokens, size, top, **models, made_by=made_by)


def _need(row: Mapping[str, Any], names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in row]:
        raise UserError(f"it lacks {', '.join(missing)}")


def _array(name: str, given: Any, kinds: str, what: str) -> np.ndarray:
    """Returns a list of numbers; `values` reads one at a time, and here are millions."""
    try:
        found = np.array(given if isinstance(given, list) else None)
    except (ValueError, OverflowError):  # lists of unequal length, numbers of any size
        found = np.array(None)
    if found.size == 0 and found.ndim == 1:
        return np.zeros(0, np.int64)
    if found.ndim != 1 or found.dtype.kind not in kinds or not np.isfinite(found).all():
        raise UserError(f"{name} must be a list of {what}, not {plain_text.show(given)}")
    return found


def _ids(name: str, given: Any, size: int) -> np.ndarray:
    found = _array(name, given, "iu", "token ids").astype(np.int64)
    if found.size and (found.min() < 0 or found.max() >= size):
        wrong = found.max() if found.min() >= 0 else found.min()
        raise UserError(
            f"{name} has the id {wrong}, and there are {size} tokens; are they of another "
            "tokenizer?"
        )
    return found


def _numbers(name: str, given: Any) -> np.ndarray:
    return _array(name, given, "iuf", "finite numbers").astype(np.float64)


def _masses(name: str, given: Any, count: int) -> np.ndarray:
    found = _numbers(name, given)
    _count(name, found, count)
    if (found < 0).any():
        raise UserError(f"{name}={found.min():g} must be at least 0")
    return found


def _whole(given: Mapping[str, Any], count: int, size: int) -> Whole:
    if "ids" in given:
        raise UserError("it lists ids, and the row has no `top`; say how many are there for sure")
    _need(given, ("logprobs",))
    try:
        data = base64.b64decode(given["logprobs"], validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise UserError("whole logprobs must be base64 of float32") from None
    if len(data) != 4 * count * size:
        raise UserError(
            f"logprobs have {len(data) // 4} numbers, and {count} tokens of a vocabulary of {size} "
            f"need {count * size}; are they of another tokenizer?"
        )
    logprobs = np.frombuffer(data, "<f4").reshape(count, size)
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.exp(logprobs.astype(np.float64)).sum(1)
    _sum_to_one(total)
    chosen = _ids("chosen", given["chosen"], size) if "chosen" in given else logprobs.argmax(1)
    _count("chosen", chosen, count)
    return Whole(logprobs, chosen)


def _listed(given: Mapping[str, Any], count: int, size: int, top: int) -> Listed:
    _need(given, ("ids", "logprobs"))
    for name in ("ids", "logprobs"):
        _count(name, given[name], count)
    rows = []
    for place in range(count):
        ids = _ids("ids", given["ids"][place], size)
        logprobs = _numbers("logprobs", given["logprobs"][place])
        if len(ids) != len(logprobs) or len(ids) < top or len(set(ids.tolist())) < len(ids):
            raise UserError(
                f"position {place} lists {len(ids)} ids and {len(logprobs)} logprobs; give as many "
                f"of either, no id twice, and at least the {top} of `top`"
            )
        if logprobs.max() > _SUM:
            raise UserError(f"position {place} has a log-probability above 0")
        # In float32, as decoding has it: 1 is 1 there, and equal are equal.
        rows.append((ids, np.exp(logprobs.astype(np.float32))))
    width = max((len(ids) for ids, _ in rows), default=1)
    found, probs = np.full((count, width), -1, np.int64), np.zeros((count, width))
    for place, (ids, own) in enumerate(rows):
        found[place, : len(ids)], probs[place, : len(ids)] = ids, own
    total = probs.sum(1)
    rest_low = np.maximum(1 - total - _ROUNDING, 0.0)
    rest_high = np.maximum(1 - total + _ROUNDING, 0.0)
    if "rest" in given:
        rest_low = rest_high = _masses("rest", given["rest"], count)
    there = (found >= 0).sum(1) < size
    rest_low, rest_high = (np.where(there, x, 0.0) for x in (rest_low, rest_high))
    _sum_to_one(total + rest_high)
    entropy = np.full(count, np.nan)
    if "entropy" in given:
        entropy = _masses("entropy", given["entropy"], count)
    chosen = found[np.arange(count), probs.argmax(1)]
    if "chosen" in given:
        chosen = _ids("chosen", given["chosen"], size)
        _count("chosen", chosen, count)
        if not (found == chosen[:, None]).any(1).all():
            raise UserError("chosen names a token that is not listed; list it")
    return Listed(found, probs, rest_low, rest_high, entropy, chosen)


def _count(name: str, given: Any, count: int) -> None:
    if not hasattr(given, "__len__") or isinstance(given, str) or len(given) != count:
        raise UserError(f"{name} must be a list, one entry for each of the {count} tokens")


def _sum_to_one(total: np.ndarray) -> None:
    if not np.all(np.abs(total - 1) <= _SUM):
        place = int(np.argmax(~(np.abs(total - 1) <= _SUM)))
        raise UserError(
            f"the probabilities at position {place} sum to {total[place]:.4g} and not to 1; are "
            "they log-probabilities at temperature 1?"
        )
