import pytest

from speccascade.errors import UserError
from speccascade.inference.sweep import product, zipped


def test_product_is_every_combination_in_order():
    assert product(rule=("a", "b"), alpha=(1, 2), n=3) == (
        {"rule": "a", "alpha": 1, "n": 3},
        {"rule": "a", "alpha": 2, "n": 3},
        {"rule": "b", "alpha": 1, "n": 3},
        {"rule": "b", "alpha": 2, "n": 3},
    )
    assert product(rule="a") == ({"rule": "a"},)


def test_zipped_goes_in_step_and_repeats_single_values():
    assert zipped(rule="bild", alpha=(2, 3), fallback=[0.6, 0.4]) == (
        {"rule": "bild", "alpha": 2, "fallback": 0.6},
        {"rule": "bild", "alpha": 3, "fallback": 0.4},
    )
    with pytest.raises(UserError, match="equally many values, not alpha 2, n 3"):
        zipped(alpha=(1, 2), n=(1, 2, 3))
