"""The head of the rule `learned`: from two models' statistics at a position to which is right.

It stands in the place of the plug-in estimate, by which each model is right with the probability
that it gives to its own best token (Narasimhan et al., ICLR 2025, eq. 5 and 10). A file of JSON
that `scripts/learn_rule.py` writes; a config names it by its path or, where it came with the
package, as "shipped:NAME".
"""

import dataclasses
import functools
import hashlib
import json
import os
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from speccascade.errors import UserError
from speccascade.inputs import paths, text_files
from speccascade.inputs.fields import Fields
from speccascade.vocab import WHOLE, Vocab, entropy, total_variation

FEATURES = (
    "max q1",
    "max p1",
    "H(q1)",
    "H(p1)",
    "TV(q1, p1)",
    "p1 at argmax q1",
    "q1 at argmax p1",
    "same argmax",
)

_SHIPPED = os.path.join(os.path.dirname(__file__), "shipped")
_REFERENCE = re.compile(r"(.*)@([0-9a-f]{16})")


@dataclasses.dataclass(frozen=True)
class Head:
    """One hidden layer over standardised features; hashable, a constant of compiled programs.

    Attributes:
      mean: [F], of the features.
      scale: [F], their spread.
      hidden_weight: [F][H].
      hidden_bias: [H].
      output_weight: [H][2], to the logits of "the drafter is right" and "the expert is right".
      output_bias: [2].
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    hidden_weight: tuple[tuple[float, ...], ...]
    hidden_bias: tuple[float, ...]
    output_weight: tuple[tuple[float, ...], ...]
    output_bias: tuple[float, ...]

    @property
    def hash(self) -> str:
        """16 hex digits of the numbers."""
        return hashlib.sha256(json.dumps(dataclasses.astuple(self)).encode()).hexdigest()[:16]


class Reference(str):
    """A head's name, "SOURCE@HASH", which a row of results holds.

    It is text that formats like the numbers that other knobs are, `f"{knob:g}"`: in short.
    """

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        source, _, digest = self.rpartition("@")
        stem = os.path.splitext(os.path.basename(source))[0]
        return f"{stem.removeprefix('shipped:')}@{digest[:6]}"


def features(q1: jax.Array, p1: jax.Array, vocab: Vocab = WHOLE) -> jax.Array:
    """Returns `FEATURES`, `[..., F]`, of distributions `[..., V]` at temperature 1."""
    return _statistics(q1, p1, vocab)[0]


def _statistics(q1, p1, vocab) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns `features` and both best tokens, `[..., 1]`, the drafter's first."""
    drafted, best = vocab.first_argmax(q1), vocab.first_argmax(p1)
    columns = (
        vocab.max(q1),
        vocab.max(p1),
        entropy(q1, vocab),
        entropy(p1, vocab),
        total_variation(q1, p1, vocab),
        vocab.at(p1, drafted[..., 0])[..., None],
        vocab.at(q1, best[..., 0])[..., None],
        (drafted == best).astype(q1.dtype),
    )
    return jnp.concatenate(columns, axis=-1), drafted, best


def logits(weights: Any, found: jax.Array) -> jax.Array:
    """Returns the logits of "the drafter is right" and "the expert is right", `[..., 2]`.

    Args:
      weights: a `Head`, or what has its attributes as arrays.
      found: from `features`.
    """

    def of(x):
        return jnp.asarray(x, found.dtype)

    exact = functools.partial(jnp.matmul, precision="highest")
    x = (found - of(weights.mean)) / of(weights.scale)
    x = jnp.tanh(exact(x, of(weights.hidden_weight)) + of(weights.hidden_bias))
    return exact(x, of(weights.output_weight)) + of(weights.output_bias)


def gain(
    head: Head, q: jax.Array, p: jax.Array, q1: jax.Array, p1: jax.Array, vocab: Vocab = WHOLE
) -> jax.Array:
    """Returns by how much more probably a draw from p is right than one from q, `[..., 1]`.

    The head says how probably either model's best token is right; any other is taken for wrong, and
    where both have the same best token the expert's estimate holds. At temperature 0 that is the
    difference of the two estimates; above it, a drafter that spreads more mass over its tail than
    the expert is worth less even where both prefer the same token. Never above `TV(q, p)`.

    Args:
      head: which head.
      q: the drafter as sampled from, `[..., V]`.
      p: the expert as sampled from.
      q1: the drafter at temperature 1.
      p1: the expert at temperature 1.
      vocab: how to reduce over V.
    """
    found, drafted, best = _statistics(q1, p1, vocab)
    right = jax.nn.sigmoid(logits(head, found))
    of_drafted, of_best = (
        (vocab.at(p, ids[..., 0]) - vocab.at(q, ids[..., 0]))[..., None] for ids in (drafted, best)
    )
    of_drafted = jnp.where(drafted == best, 0.0, of_drafted)  # one token counts once
    return of_drafted * right[..., :1] + of_best * right[..., 1:]


def reference(source: str) -> Reference:
    """Returns the name, with its content's hash, of the head that a config names.

    Raises:
      UserError: there is none, or it is damaged.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise UserError(f"head={source} must name a file that scripts/learn_rule.py wrote")
    source = os.fspath(source)
    named = _REFERENCE.fullmatch(source)
    return Reference(source if named else f"{source}@{_read(source).hash}")


def load(name: str) -> Head:
    """Returns the head of a reference or of a config's name.

    Raises:
      UserError: there is none, it is damaged, or its content is not that of the reference.
    """
    return _load(str(reference(name)))


@functools.lru_cache(maxsize=64)
def _load(name: str) -> Head:
    source, _, wanted = name.rpartition("@")
    head = _read(source)
    if head.hash != wanted:
        raise UserError(f"head {source} is not what it was ({wanted}); name it without the @")
    return head


def notes(name: str) -> dict[str, Any]:
    """Returns how the head of a reference or of a config's name was trained; see `save`."""
    load(name)
    named = _REFERENCE.fullmatch(name)
    return Fields.read(_path(named[1] if named else name)).object("notes", {}).values


def save(head: Head, path: str, notes: dict[str, Any]) -> None:
    """Writes a head.

    Args:
      head: what to write.
      path: the file.
      notes: how it was trained; JSON-ready.
    """
    path = paths.on_disk(path, "a head")
    partial = f"{path}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump({"features": FEATURES, **dataclasses.asdict(head), "notes": notes}, file)
        file.write("\n")
    os.replace(partial, path)


def _path(source: str) -> str:
    if source.startswith("shipped:"):
        return os.path.join(_SHIPPED, source.removeprefix("shipped:"), "head.json")
    return paths.on_disk(source, "a head")


def _read(source: str) -> Head:
    path = _path(source)
    if not os.path.exists(path):
        raise UserError(f"no head at {path}; train one with scripts/learn_rule.py --out={path}")
    try:
        found = text_files.read_json(path)
    except UserError as error:
        raise UserError(f"head {path} is damaged ({error}); train it again") from None
    why = ""
    try:
        fields = Fields(found, path)
        head = Head(**{f.name: _numbers(fields, f.name) for f in dataclasses.fields(Head)})
        fits = tuple(fields.texts("features")) == FEATURES and _fits(head)
    except (UserError, ValueError) as error:  # ValueError: rows of unequal length
        fits, why = False, f" ({error})"
    if not fits:
        raise UserError(f"{path} is no head of this version{why}; train it again")
    return head


def _numbers(fields: Fields, name: str) -> tuple:
    """Returns a vector or a matrix."""
    rows = fields.each(name)
    if all(isinstance(row, list) for row in rows.values.values()):
        return tuple(tuple(map(float, rows.numbers(row))) for row in rows.values)
    return tuple(map(float, fields.numbers(name)))


def _fits(head: Head) -> bool:
    inputs, hidden = len(FEATURES), len(head.hidden_bias)
    shapes = {
        "mean": (inputs,),
        "scale": (inputs,),
        "hidden_weight": (inputs, hidden),
        "hidden_bias": (hidden,),
        "output_weight": (hidden, 2),
        "output_bias": (2,),
    }
    found = {name: np.array(getattr(head, name)) for name in shapes}
    finite = all(np.all(np.isfinite(x)) for x in found.values()) and np.all(found["scale"] > 0)
    return bool(finite) and all(found[name].shape == shape for name, shape in shapes.items())
