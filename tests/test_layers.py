"""Imports point down: which folder may know which, and no circle between files."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path("speccascade")

# What each folder, or file at the top, may import beside itself. The method stands alone.
_BASE = ("errors", "vocab")
_KNOBS = (*_BASE, "inputs", "learned_head", "knobs")
_METHOD = (*_KNOBS, "kernels", "rules", "sampling", "verify", "randomness")
_MODELS = (*_BASE, "inputs", "sharding", "models")
_FILES = (*_MODELS, "text", "workdir")
_PAIRS = (*_METHOD, *_FILES, "decode", "importing", "pairs")
_ANSWERS = (*_PAIRS, "tasks", "inference")
ALLOWED = {
    "errors": (),
    "web": (),
    "vocab": (),
    "learned_head": (*_BASE, "inputs"),
    "knobs": (*_BASE, "inputs", "learned_head"),
    "kernels": (*_BASE, "knobs", "sampling", "verify"),
    "rules": (*_KNOBS, "kernels"),
    "sampling": _BASE,
    "verify": (*_BASE, "sampling"),
    "randomness": (*_BASE, "inputs"),
    "inputs": _BASE,
    "sharding": (*_BASE, "inputs"),
    "models": _MODELS,
    "text": (*_BASE, "inputs"),
    "tasks": (*_BASE, "inputs", "text"),
    "workdir": _FILES,
    "decode": (*_METHOD, *_MODELS),
    "importing": (*_FILES, "importing"),
    "pairs": _PAIRS,
    "inference": _ANSWERS,
    "evaluate": _ANSWERS,
    "training": _ANSWERS,
    "benchmark": (*_ANSWERS, "evaluate", "report"),
    "trace": (*_ANSWERS, "web"),
    "plan": (*_ANSWERS, "training"),
    "report": (*_ANSWERS, "evaluate", "web"),
    "tuning": (*_ANSWERS, "evaluate", "report", "benchmark"),
    "spec_bench": (*_ANSWERS, "evaluate", "report"),
    "lm_eval": (*_ANSWERS, "evaluate", "runtime"),
    "certify": (*_ANSWERS, "evaluate", "report", "tuning"),
    "replay": (*_ANSWERS, "evaluate", "report"),
    "conformance": _METHOD,
    "lossy": (*_ANSWERS, "evaluate", "report", "tuning"),
    "distillation": (*_ANSWERS, "training"),
    "experiment": (*_ANSWERS, "training", "evaluate", "report", "plan"),
    "runtime": (*_FILES,),
    "__main__": ("runtime",),
    "__init__": ("inference",),  # lazily: the library face
    "generate": ("inference",),  # its old name
}


def _modules() -> dict[str, pathlib.Path]:
    names = {path: ".".join(path.with_suffix("").parts) for path in ROOT.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


MODULES = _modules()


def _imports(path: pathlib.Path) -> list[str]:
    """Returns the modules that a file imports, lazily or not."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name if name in MODULES else node.module for name in names]
    return found


def _place(module: str) -> str:
    """Returns the folder, or the file at the top, that a module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("place", sorted({_place(name) for name in MODULES}))
def test_a_folder_knows_only_what_is_below_it(place):
    allowed = {place, *ALLOWED[place]}
    for name, path in MODULES.items():
        if _place(name) == place:
            own = {_place(m) for m in _imports(path) if m.split(".")[0] == ROOT.name}
            assert own <= allowed, f"{path} imports {sorted(own - allowed)}"


def test_the_table_of_folders_has_no_circle():
    graph = {place: set(below) - {place} for place, below in ALLOWED.items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_old_names_are_the_modules_that_moved():
    from speccascade import generate
    from speccascade.evaluate import decoding, results
    from speccascade.inference import engine
    from speccascade.inference import generate as now
    from speccascade.workdir import results as rows

    assert (generate, decoding, results) == (now, engine, rows)


def test_no_circle_between_files():
    graph = {
        name: {m for m in _imports(path) if m in MODULES and m != name}
        for name, path in MODULES.items()
    }
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_flax_is_known_to_models_alone():
    users = {
        _place(name)
        for name, path in MODULES.items()
        if any(m.split(".")[0] == "flax" for m in _imports(path))
    }
    assert users == {"models"}
