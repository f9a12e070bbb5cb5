"""Which setting is the fastest in a batch, and whether any draft pays there."""

from collections import Counter

import numpy as np
import pytest

from speccascade import decode, rules
from speccascade.inference.reading import setting
from speccascade.tuning import batches
from tests.decode import path_law, toys

EXPERT = setting({"method": "autoregressive_expert"})


def of(rule, length, **fields):
    return setting({"rule": rule, "draft_length": length, **fields})


@pytest.mark.parametrize("rule", ["spec", "token_v3"])
def test_the_passes_are_those_of_a_block(rule):
    """The drafter's of a real block, by the models' own count and by what they read."""
    made, knobs = Counter(), {"alpha": 0.3} if rule != "spec" else {}

    class Counting(toys.Table):
        def apply(self, params, tokens, positions, cache):
            made[tokens.shape[1]] += 1
            return super().apply(params, tokens, positions, cache)

    rows = path_law.make_batch([path_law.Setting(rule, knobs)] * 4, 0)
    drafter = decode.ModelDrafter(Counting(path_law.VOCAB))
    decoder = decode.Decoder(path_law.TABLE, drafter, 3, path_law.LIMIT)
    params = toys.tables(path_law.VOCAB, seed=3)
    _, record = next(decode.trace(decoder, params, (rules.make(rule, **knobs),), rows))
    own = batches.passes(of(rule, 3, **knobs))
    assert own[("expert", 4)] == 1
    by_drafter = {width: n for (role, width), n in own.items() if role == "drafter"}
    assert set(made) == set(by_drafter)  # traced once each: a loop makes all of one width
    assert np.all(record.draft.calls["drafter"] == sum(by_drafter.values()))


def test_what_is_known_beforehand():
    assert batches.passes(EXPERT) == {("expert", 1): 1}
    lookup = of("spec", 3, drafter="lookup")
    assert batches.passes(lookup) == {("expert", 4): 1}
    assert batches.passes(of("spec", 1, drafter="small")) == {("expert", 2): 1, ("small", 2): 1}
    unknown = [
        of("bild", 3, alpha=3.0),
        of("spec", 3, middle_rule="spec", middle_draft_length=1),
        of("spec", 3, drafter="lookup", otherwise="drafter"),
        setting({"method": "autoregressive_drafter"}),
    ]
    assert [batches.passes(each) for each in unknown] == [None] * 4


def test_the_costlier_wide_passes_are_the_shorter_the_drafts_and_then_none():
    tokens = {EXPERT: np.nan, of("spec", 2): 2.4, of("spec", 6): 4.0}

    def seconds(slope):
        wide = {("expert", n): 1 + slope * (n - 1) for n in (1, 3, 7)}
        return wide | {("drafter", 1): 0.1, ("drafter", 2): 0.1}

    found = [batches.fastest(tokens, seconds(slope)) for slope in (0.0, 0.3, 0.9)]
    assert [each.setting.draft_length for each in found] == [6, 2, None]
    expected = 4.0 / (1 + 0.6), 2.4 / (1.6 + 0.2), 1.0
    assert [each.speedup for each in found] == pytest.approx(expected)
