"""What stores the golden logits, without the reference implementation."""

import json
import sys
from types import SimpleNamespace

import numpy as np

from tests.importing import decoder_only_families as families
from tests.importing import golden


def test_both_files_are_written(tmp_path, monkeypatch):
    class Reference(SimpleNamespace):
        def save_pretrained(self, directory):
            with open(f"{directory}/config.json", "w") as file:
                json.dump({"size": self.size}, file)

    monkeypatch.setattr(sys, "argv", ["make", f"--out={tmp_path}"])
    sizes = {"one": 1, "two": 2}
    golden.store(
        "Makes them.",
        families,
        sizes,
        lambda name: Reference(size=sizes[name]),
        lambda model: np.full(3, model.size),
    )
    configs = json.loads((tmp_path / families.GOLDEN_CONFIGS.name).read_text())
    assert configs == {"one": {"size": 1}, "two": {"size": 2}}
    with np.load(tmp_path / families.GOLDEN_LOGITS.name) as stored:
        assert {name: stored[name].tolist() for name in stored} == {"one": [1] * 3, "two": [2] * 3}
