"""Meshes: sizes as asked for, and one line for each mistake."""

import jax
import pytest

from speccascade.errors import UserError
from speccascade.sharding import make_mesh


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        (None, {"data": 1, "model": 8}),
        ({"data": 2, "model": 4}, {"data": 2, "model": 4}),
        ({"model": 4, "data": -1}, {"data": 2, "model": 4}),
        ({"fsdp": 2, "model": 4}, {"data": 1, "fsdp": 2, "model": 4}),
    ],
)
def test_sizes(sizes, shape):
    mesh = make_mesh(sizes)
    assert dict(mesh.shape) == shape and list(mesh.shape) == list(shape)
    assert set(mesh.devices.flat) == set(jax.devices())


def test_devices_may_be_chosen():
    chosen = jax.devices()[2:5]
    assert list(make_mesh({"model": 3}, chosen).devices.flat) == chosen


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"modle": 8}, "mesh has no axis modle; its axes: data, fsdp, model"),
        ({"data": 3, "model": -1}, "mesh data=3, model=-1 does not use up the 8 devices"),
        ({"data": 2, "model": 2}, "mesh data=2, model=2 does not use up the 8 devices"),
        ({"data": -1, "model": -1}, "leaves several axes open"),
        ({"model": 0}, "mesh.model=0 must be a whole number"),
        ({"model": "8"}, "mesh.model='8' must be a whole number"),
    ],
)
def test_mistakes_are_one_line_errors(sizes, message):
    with pytest.raises(UserError, match=message) as error:
        make_mesh(sizes)
    assert "\n" not in str(error.value)
