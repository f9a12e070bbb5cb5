"""The tables of lossy modes: their parts against other enumerations, and a workdir's rivals."""

import json

import jax
import numpy as np
import pytest

from speccascade import rules
from speccascade.errors import UserError
from speccascade.inference.reading import setting
from speccascade.lossy import beside, laws, table
from speccascade.report.points import collect
from tests import enumeration
from tests.report import synthetic

PAIR = table.pairs(1, 1.0)[0]


def test_the_experts_law_is_that_of_the_tests():
    for eos in (None, enumeration.EOS):
        found = laws.expert_law(PAIR.p, 3, eos)
        assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, enumeration.target_law(PAIR.p[None], 3)[0], atol=1e-12)


def test_tokens_of_a_lossless_block_are_those_of_the_enumeration():
    lossless = rules.make("cactus", delta=0)
    first = laws.kernel_law(lossless, PAIR, table.SIZE, 1)[1]
    np.testing.assert_allclose(table.tokens_per_call(PAIR.q, PAIR.p), first, atol=1e-9)


@pytest.mark.parametrize("name", table.RIVALS)
def test_a_rival_is_the_expert_at_its_least_strength(name):
    family, strengths = table.RIVALS[name]
    stacked = laws.Tables(*(x[None] for x in PAIR))
    drafters, pi = family(strengths[[0, 50]], stacked)
    np.testing.assert_allclose(pi[0, 0], PAIR.p, atol=1e-9)
    assert np.abs(pi[1, 0] - PAIR.p).max() > 0.05
    np.testing.assert_allclose(pi.sum(-1), 1, atol=1e-9)
    assert len(drafters) >= 1
    if name != "truncated expert (min-p)":
        with jax.enable_x64(True):
            rule = jax.tree.map(np.float64, rules.make(name, alpha=strengths[50]))
            np.testing.assert_allclose(pi[1, 0], rules.target(rule, *PAIR), atol=1e-6)


def test_a_modes_divergence_is_that_of_its_first_token():
    assert table.divergence(rules.make("cactus", delta=0), [PAIR]) == pytest.approx(0, abs=1e-9)
    far = table.divergence(rules.make("cactus", delta=0.5), [PAIR])
    law = laws.kernel_law(rules.make("cactus", delta=0.5), PAIR, 1, 2)[0].reshape(4, 4).sum(1)
    assert far == pytest.approx(float((law * np.log(law / PAIR.p[0])).sum())) and far > 0


def test_a_table_needs_a_pair():
    with pytest.raises(UserError, match="pairs=0 must be at least 1"):
        table.table(0)


# ---- a workdir ----

EXPERT = {"method": "autoregressive_expert", "temperature": 1.0}
MODE = {"method": "kernel", "rule": "cactus", "delta": 0.5, "draft_length": 4, "temperature": 1.0}
SPEC = {"rule": "spec", "draft_length": 4, "temperature": 1.0}
LOSSY = [{**SPEC, "rule": "lossy", "alpha": alpha} for alpha in (0.2, 0.5, 0.9)]
TOKENS = {2: 2.9, 3: 2.0, 4: 3.0, 5: 3.5}  # by place in `ENTRIES`: the mode's 2.5 stands
ENTRIES = [EXPERT, MODE, SPEC, *LOSSY]


@pytest.fixture
def workdir(tmp_path):
    rows = []
    for i, entry in enumerate(ENTRIES):
        for split in ("validation", "test"):
            scores = [float(j % 10 >= (6 if entry is MODE else 1)) for j in range(40)]
            row = synthetic.quality(entry, split, scores)
            if i in TOKENS:
                row["tokens_per_expert_call"] = TOKENS[i]
            rows.append(row)
    evaluate = {
        "settings": ENTRIES,
        "splits": {"validation": 40, "test": 40},
        "max_new_tokens": 4,
        "batch_size": 4,
        "timing": {"num_examples": 0, "trials": 1},
    }
    config = {"task": {"name": "gsm_symbolic"}, "pair": "shipped:gsm_symbolic"}
    config["evaluate"] = evaluate
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(collect(rows, config, "").by_setting) == 2 * len(ENTRIES)
    return tmp_path


def test_a_mode_stands_beside_rules_as_fast_as_it(workdir):
    lines = beside.table(str(workdir)).splitlines()
    assert lines[2] == "| the expert | 1 | 1.00 | 0.900 |  |"
    told = lines[3].split(" | ")[-1]
    mode = setting(MODE).label
    assert lines[3].startswith(f"| {mode} (delta=0.5 N=4 kernel) | 1 | 2.50 | 0.400 |")
    assert "spec (N=4 token): 2.90, 0.900, mode worse" in told
    # Of `lossy`, the slowest of those that are no slower; the one at 2.0 is.
    assert "lossy (alpha=0.5 N=4 token): 3.00, 0.900" in told
    assert told.count("lossy") == 1


def test_a_workdir_without_a_kernel_is_said(workdir):
    rows = (workdir / "results.jsonl").read_text().splitlines()
    kept = [row for row in rows if '"method": "kernel"' not in row]
    (workdir / "results.jsonl").write_text("\n".join(kept) + "\n")
    with pytest.raises(UserError, match="no row of a kernel"):
        beside.table(str(workdir))
