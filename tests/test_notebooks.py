"""The notebooks run from top to bottom, and what they show is kept in them."""

import json
import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


def kinds(notebook):
    """Returns, for each cell of code, what kinds of output it has."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [
        sorted({kind for out in cell["outputs"] for kind in out.get("data", [_told(out)])})
        for cell in cells
    ]


def _told(output):
    return output.get("name", output["output_type"])  # a stream's name, or "error"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_and_small(path):
    notebook = json.loads(path.read_text())
    assert path.stat().st_size < 200_000
    found = kinds(notebook)
    assert ["image/png", "text/plain"] in found and ["stdout"] in found
    assert not {"error", "stderr"} & {kind for kinds_of_cell in found for kind in kinds_of_cell}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")  # of requirements-dev.txt
    nbformat = pytest.importorskip("nbformat")

    monkeypatch.setenv("PYTHONPATH", str(ROOT) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    notebook = nbformat.read(path, as_version=4)
    kept = kinds(notebook)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=900, resources=resources).execute()
    assert kinds(notebook) == kept
