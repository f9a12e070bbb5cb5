"""A pair given as two Hugging Face directories: a config of ten lines, a sweep, a table."""

import pathlib
import subprocess
import sys

import pytest

from speccascade.evaluate.jobs import QUALITY, TEACHER_FORCED, TIMING
from speccascade.report import report
from speccascade.workdir import results
from tests.importing import tiny_checkpoint, tiny_t5_checkpoint

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """from ml_collections import ConfigDict
from speccascade.inference.sweep import product
def get_config():
    settings = product(method="autoregressive_expert") + product(rule="spec", draft_length=2)
    return ConfigDict({{
        "task": {{"name": "questions", "path": "{root}/configs/questions.jsonl"}},
        "pair": {{"drafter": "{drafter}", "expert": "{expert}"}},
        "evaluate": {{"settings": settings, "splits": {{"validation": 2, "test": 2}}, "batch_size":
            2, "max_new_tokens": 4, "timing": {{"num_examples": 1, "trials": 1}}}}}})
"""


def llamas(folder):
    weights = {k: v for k, v in tiny_checkpoint.tensors().items() if "layers.1" not in k}
    drafter = tiny_checkpoint.write(folder / "drafter", weights, num_hidden_layers=1)
    return drafter, tiny_checkpoint.write(folder / "expert", shards=2)


def t5s(folder):
    drafter = tiny_t5_checkpoint.write(folder / "drafter", num_layers=1, num_decoder_layers=1)
    return drafter, tiny_t5_checkpoint.write(folder / "expert")


@pytest.mark.slow
@pytest.mark.parametrize("make", [llamas, t5s])
def test_ten_lines_of_config_make_a_table(make, tmp_path):
    drafter, expert = make(tmp_path)
    config, workdir = tmp_path / "config.py", str(tmp_path / "run")
    config.write_text(CONFIG.format(root=ROOT, drafter=drafter, expert=expert))
    assert len(config.read_text().splitlines()) <= 10
    command = [sys.executable, "scripts/evaluate.py", f"--config={config}", f"--workdir={workdir}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    rows = results.read(workdir)
    made = {(row["kind"], row["split"], row["method"]) for row in rows}
    methods = ("autoregressive_expert", "speculative")
    kinds, splits = (QUALITY, TIMING), ("validation", "test")
    forced = {(TEACHER_FORCED, s, m) for s in splits for m in ("oracle", "speculative")}
    assert made == {(k, s, m) for k in kinds for s in splits for m in methods} | forced
    # Greedy, speculative decoding writes what the expert writes.
    tokens = {(r["method"], r["split"]): r["tokens"] for r in rows if r["kind"] == QUALITY}
    for split in splits:
        assert tokens["speculative", split] == tokens["autoregressive_expert", split] > 0
    table, paths = report(workdir)
    assert "| spec |" in table and all(pathlib.Path(path).exists() for path in paths)
