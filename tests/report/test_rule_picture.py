"""The picture of the rules: of all of them, as their closed forms have them."""

import numpy as np
import pytest

from speccascade.report import rule_picture
from speccascade.rules import RULES
from tests import rule_oracle, toy_head


def test_targets_are_the_closed_forms():
    settings = rule_picture.SETTINGS | {"learned": {"alpha": 0.0, "head": toy_head.PATH}}
    assert set(settings) == set(RULES) - {"expert"}  # whose law spec has
    q, p = np.array(rule_picture.DRAFTER), np.array(rule_picture.EXPERT)
    assert q.sum() == pytest.approx(1) and p.sum() == pytest.approx(1)
    for name, (pi, deferred) in rule_picture.targets(settings).items():
        expected, mass, margin = rule_oracle.oracle(name, settings[name], q, p, q, p)
        assert margin > 0.001, f"{name} is too near to where its decisions turn over"
        np.testing.assert_allclose(pi, expected, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(deferred, mass, atol=1e-6, err_msg=name)


def test_it_is_drawn_of_rules_and_distributions_of_ones_own(tmp_path):
    path = tmp_path / "two.png"
    some = {name: rule_picture.SETTINGS[name] for name in ("spec", "token_v3")}
    rule_picture.draw(str(path), some, (0.5, 0.5), (0.9, 0.1), ("yes", "no"))
    assert path.read_bytes().startswith(b"\x89PNG")
