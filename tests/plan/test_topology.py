"""Names of slices, and what is said where there is no compiler for them."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

from speccascade.errors import UserError
from speccascade.plan import topology
from speccascade.sharding import chips, make_mesh
from speccascade.sharding.chips import CHIPS

ROOT = pathlib.Path(__file__).parents[2]
LIBTPU = importlib.util.find_spec("libtpu") is not None


def test_names():
    assert topology.names("v5e:4x4") == ["v5e:4x4"]
    assert topology.names("v4:2x2x1, v6e:2x4") == ["v4:2x2x1", "v6e:2x4"]
    found = topology.names("all")
    assert [name.partition(":")[0] for name in found] == list(CHIPS)


@pytest.mark.parametrize("name", ["v5e", "v5e:", "v5e:4", "v5e:0x4", "v9:2x2", "v5litepod-16", ""])
def test_unknown_names_list_the_known(name):
    with pytest.raises(UserError, match="v5e: 1x1 2x2") as caught:
        topology.names(name)
    assert repr(name) in str(caught.value) and "\n" not in str(caught.value)


def test_larger_slices():
    assert topology.larger("v5e:2x2") == "v5e:2x4"
    assert topology.larger("v5e:3x3") == "v5e:4x4"
    assert topology.larger("v5e:16x16") is None


def test_without_libtpu(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="requirements-tpu.txt"):
        topology.describe("v5e:4x4")


@pytest.mark.skipif(not LIBTPU, reason="needs libtpu: pip install -r requirements-tpu.txt")
@pytest.mark.parametrize("name", ["v4:2x2x4", "v5e:4x4", "v5p:2x2x4", "v6e:4x4"])
def test_a_mesh_may_split_the_axes_of_a_slice(name):
    slice_ = topology.describe(name)
    mesh = make_mesh({"data": 2, "model": 8}, slice_.devices)
    assert mesh.devices.shape == (2, 8)
    assert {d.id for d in mesh.devices.flat} == {d.id for d in slice_.devices}
    assert chips.of(slice_.devices[0]) is slice_.chip


@pytest.mark.skipif(LIBTPU, reason="libtpu is installed")
def test_the_script_says_in_one_line_that_libtpu_is_missing():
    config = "configs/paper/t5_small_large.py"
    command = ["scripts/tpu_plan.py", f"--config={config}", "--topology=v5e:2x2"]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert "requirements-tpu.txt" in done.stderr
