"""Toy checkpoints of the paper's architectures, and its tasks as JSON lines."""

import json
import pathlib
import shutil

from safetensors.numpy import save_file

from speccascade import models
from speccascade.importing.preparation import flat
from tests.importing import decoder_only_families, planned, t5_families
from tests.tasks.rows import ROWS, numbered
from tests.text import makers

_ROOM = 512  # rows of the embeddings; the tokenizers have fewer tokens, as the real ones


def gemma2(folder: pathlib.Path) -> dict[str, str]:
    """Writes a drafter and an expert with all that is Gemma-2's; returns the pair's source."""
    fields = {
        **decoder_only_families.golden()[0]["gemma2"],
        "vocab_size": _ROOM,
        "max_position_embeddings": 8192,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "sliding_window": 64,
    }
    layers = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}
    sizes = {"drafter": {**layers, "hidden_size": 16}, "expert": layers}
    for role, own in sizes.items():
        makers.byte_fallback(folder / role, prefix="never", add_bos_token=True)
        _write(folder / role, {**fields, **own}, decoder_only_families.tensor)
    return {role: str(folder / role) for role in sizes}


def t5(folder: pathlib.Path) -> dict[str, str]:
    """Writes a drafter and an expert with all that is T5 v1.1's; returns the pair's source."""
    fields = {
        **t5_families.golden()[0]["v1_1"],
        "vocab_size": _ROOM,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "n_positions": 512,
        "eos_token_id": 1,
    }
    sizes = {
        "drafter": {"num_layers": 1, "num_decoder_layers": 1, "d_model": 16},
        "expert": {"num_layers": 2, "num_decoder_layers": 2},
    }
    makers.unigram(folder / "drafter")
    shutil.copytree(folder / "drafter", folder / "expert")  # made again it would be another
    for role, own in sizes.items():
        _write(folder / role, {**fields, **own}, t5_families.tensor)
    return {role: str(folder / role) for role in sizes}


def _write(folder: pathlib.Path, fields: dict, tensor) -> None:
    (folder / "config.json").write_text(json.dumps(fields))
    plan = planned.plan(fields)
    shapes = flat(models.shapes(models.build(plan.description)))
    weights = {w.name: tensor(w.name, shapes[k].shape) for k, w in plan.weights.items()}
    save_file(weights, folder / "model.safetensors")


def rows(folder: pathlib.Path, task: str, count: int = 96) -> str:
    """Writes JSON lines of a task's columns, `count` in every split; returns their directory."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation", "test"):
        lines = [json.dumps(numbered(ROWS[task], f"{split} {i}")) for i in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder)
