"""What each rule makes of two small distributions: docs/rules.png, and rules of your own.

    from speccascade.report import rule_picture
    rule_picture.draw("docs/rules.png")
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from speccascade import rules
from speccascade.report import style
from speccascade.rules import Distributions

# Six tokens. The two prefer different ones, and each finds the other's good, too.
DRAFTER = (0.42, 0.25, 0.17, 0.10, 0.06, 0.00)
EXPERT = (0.30, 0.52, 0.02, 0.10, 0.03, 0.03)
TOKENS = "abcdef"

# Knobs at which a rule is neither of the two, here.
SETTINGS: dict[str, dict[str, Any]] = {
    "spec": {},
    "drafter": {},
    "chow": {"alpha": 0.6},
    "diff": {"alpha": 0.05},
    "opt": {"alpha": 0.5},
    "chowlog": {"alpha": 1.2},
    "optlog": {"alpha": 0.3},
    "learned": {"alpha": 0.0, "head": "shipped:gsm_symbolic"},
    "token_v1": {"alpha": 0.15},
    "token_v2": {"alpha": 0.2},
    "token_v3": {"alpha": 0.5},
    "typical": {"alpha": 0.3},
    "topk_relaxed": {"alpha": 0.45, "k": 3},
    "bild": {"alpha": 2.5, "fallback": 0.4},
    "lossy": {"alpha": 0.4},
    "lenient": {"alpha": 0.4},
    "mixture": {"alpha": 0.5},
}


def targets(
    settings: Mapping[str, Mapping[str, Any]],
    drafter: Sequence[float] = DRAFTER,
    expert: Sequence[float] = EXPERT,
) -> dict[str, tuple[np.ndarray, float]]:
    """Returns each rule's target pi [V], float32, and the mass it defers (NaN without deferral).

    Args:
      settings: rules by name, with their knobs.
      drafter: q [V], which is q1 too: temperature 1.
      expert: p [V], which is p1 too.

    Raises:
      UserError: a rule or a knob is unknown or outside its domain.
    """
    q, p = jnp.asarray(drafter, jnp.float32)[None], jnp.asarray(expert, jnp.float32)[None]
    found = {}
    for name, knobs in settings.items():
        made = rules.apply(rules.make(name, **knobs), Distributions(q, p, q, p))
        found[name] = np.asarray(made.pi[0]), float(made.deferral[0])
    return found


def draw(
    path: str,
    settings: Mapping[str, Mapping[str, Any]] = SETTINGS,
    drafter: Sequence[float] = DRAFTER,
    expert: Sequence[float] = EXPERT,
    tokens: Sequence[str] = TOKENS,
) -> None:
    """Draws q, p and every rule's target, a panel each, into a PNG; see `targets`."""
    made = targets(settings, drafter, expert)
    columns = len(made) if len(made) <= 6 else 4
    figure, grid = style.plt.subplots(
        -(-len(made) // columns),
        columns,
        figsize=(1.9 * columns, 1.75 * -(-len(made) // columns) + 0.5),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    places = np.arange(len(drafter))
    for axes, (name, (pi, deferred)) in zip(grid.flat, made.items(), strict=False):
        axes.bar(places, pi, 0.8, color="0.8", label="target")
        for probs, colour, mark, shift, label in (
            (drafter, "#0072B2", "<", -0.2, "drafter q"),
            (expert, "#D55E00", ">", 0.2, "expert p"),
        ):
            marks = {"color": colour, "markersize": 5, "clip_on": False, "zorder": 3}
            axes.plot(places + shift, probs, mark, label=label, **marks)
        numbers = (f"{key} {x:g}" for key, x in settings[name].items() if not isinstance(x, str))
        axes.set_title("\n".join([name, ", ".join(numbers)]).strip(), fontsize=9)
        if not np.isnan(deferred):
            axes.text(0.97, 0.93, f"defers {deferred:.0%}", **_corner(axes))
        axes.set_xticks(places, tokens, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(grid.flat)[len(made) :]:
        axes.set_visible(False)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)
    style.plt.close(figure)


def _corner(axes) -> dict[str, Any]:
    return {"transform": axes.transAxes, "ha": "right", "va": "top", "fontsize": 8, "color": "0.3"}
