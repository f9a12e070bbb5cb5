"""What docs/extend.md says of adding things: one of each, as somebody would who knows only that."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import pairs, rules
from speccascade.decode.drafters import interface
from speccascade.evaluate import evaluation
from speccascade.inference import drafting, methods
from speccascade.inference.methods.autoregressive import EXPERT
from speccascade.inference.setting import Drafting, Method
from speccascade.inference.statistics import STATISTICS, Statistic
from speccascade.report import columns, report
from speccascade.workdir import results
from tests import tiny_pair

# ---- a rule: one function and one row ----


def _ratio(d, knobs, vocab):
    return rules._per_token(d, d.p1 < knobs["alpha"] * d.q1, vocab)


RATIO = rules.RuleDefinition(
    _ratio,
    "my paper, eq. 1",
    rules.RULES["diff"].knobs,
    drafter_at={"alpha": 0.0},
    reads_q1=True,
)


# ---- a drafter: one file for what it does, one for how a setting names it ----


@dataclasses.dataclass(frozen=True)
class EchoDrafter(interface.WithoutModel):
    """Drafts the newest token again and again."""

    def check(self, expert, size, rules, drafting):
        interface.check_size(size)

    def draft(self, params, state, request, ends_draft, bonus):
        shape = request.last.shape[0], request.size + bonus
        tokens = jnp.broadcast_to(request.last[:, None], shape)
        q = interface.OneHot(tokens, jnp.ones(shape, bool))
        full = jnp.full(shape[:1], request.size, jnp.int32)
        return interface.Draft(tokens[:, : request.size], q, full, {}, full > 0), state


@dataclasses.dataclass(frozen=True)
class ByEcho(Drafting):
    name = "echo"
    has_q = False

    @classmethod
    def read(cls, given, rule):
        return (cls() if given.get("drafter") == "echo" else None), {"drafter"}

    @classmethod
    def of_row(cls, row):
        return cls() if row.get("drafter") == "echo" else None

    def fields(self):
        return {"drafter": "echo"}

    @property
    def over(self):
        return "echo"

    @property
    def program(self):
        return ("echo",)

    def drafter(self, pair):
        return EchoDrafter(), ()

    def scored(self, counts, blocks, rereads):
        return {}


# ---- a method: one object ----


class Halves(Method):
    """The expert, with half of the room for its answers."""

    name = "halves"
    alone = "expert"

    def read(self, given):
        return {}, set()

    def trouble(self, setting, pair):
        return None

    def prepare(self, room, settings, rules, rows):
        rows = rows._replace(max_new_tokens=(rows.max_new_tokens + 1) // 2)
        return EXPERT.prepare(room, settings, rules, rows)


@pytest.fixture
def added(monkeypatch):
    monkeypatch.setitem(rules.RULES, "ratio", RATIO)
    monkeypatch.setattr(drafting, "DRAFTINGS", (ByEcho, *drafting.DRAFTINGS))
    monkeypatch.setitem(methods.METHODS, Halves.name, Halves())
    # A statistic of decoding, and a column of another kind.
    kept = Statistic("drafts kept", lambda counts, setting: counts["accepted"], digits=0)
    monkeypatch.setitem(STATISTICS, "kept", kept)
    monkeypatch.setitem(columns.COLUMNS, "kept", columns._of_statistic("kept"))
    longest = columns.Column(
        "best score",
        lambda point, points: f"{np.max(point.scores):g}",
        lambda point, points: {"best": np.max(point.scores)},
        in_main=False,
    )
    monkeypatch.setitem(columns.COLUMNS, "best", longest)


def test_everything_that_was_added_is_swept_and_reported(added, tmp_path):
    pairs.export(tiny_pair.make(), tmp_path / "pair", {})
    config = tiny_pair.get_config(str(tmp_path / "pair"))
    config.evaluate.timing.num_examples = 0
    config.evaluate.splits = {"validation": 4, "test": 4}  # of one shape
    config.evaluate.settings = (
        {"method": "autoregressive_expert"},
        {"method": "halves"},
        {"rule": "ratio", "alpha": 0.5, "draft_length": 2},
        {"rule": "token_v3", "alpha": 0.5, "draft_length": 2, "drafter": "echo"},
    )
    workdir = str(tmp_path / "w")
    assert evaluation.evaluate(config, workdir).failed == []
    rows = {
        (row["method"], row["rule"]): row
        for row in results.read(workdir)
        if row["kind"] == "quality" and row["split"] == "test"
    }
    whole, half = rows["autoregressive_expert", None], rows["halves", None]
    assert half["tokens"] * 2 == whole["tokens"] and half["tokens_per_expert_call"] == 1
    echoed = rows["speculative", "token_v3"]
    assert echoed["drafter"] == "echo" and echoed["drafter_calls"] == 0 and echoed["kept"] >= 0
    text, _ = report(workdir)
    assert "drafts kept" in text and "best score" in text
    for line in ("| halves |", "| ratio alpha=0.5 |", "| token_v3 over echo alpha=0.5 |"):
        assert line in text
