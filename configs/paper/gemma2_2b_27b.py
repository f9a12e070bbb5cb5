"""Gemma-2 2B drafts for 27B: one of the paper's pairs, N = 1.

python scripts/tpu_plan.py --config=configs/paper/gemma2_2b_27b.py --topology=v5e:4x4
python scripts/evaluate.py --distributed --config=configs/paper/gemma2_2b_27b.py:gsm8k --workdir=gs://BUCKET/runs/NAME

The paper, as its readers summarise it, has N = 1 and the rejection rate in place of time; its
temperatures and numbers of examples are not known, those here are ours. `--dry_run` says what all
of it costs. For less, `--config.evaluate.splits.test=100`, or nothing timed,
`--config.evaluate.timing.num_examples=0`, or other settings, the expert's
own decoding among them: `--config.evaluate.settings='({"method": "autoregressive_expert"},
{"rule": "spec", "draft_length": 1})'`.
"""

import pathlib
import runpy

import ml_collections

paper = runpy.run_path(str(pathlib.Path(__file__).with_name("common.py")))


def sweep() -> tuple[dict, ...]:
    """The paper's methods at its N."""
    return paper["sweep"](draft_lengths=(1,), temperatures=(0.0, 0.5, 1.0))


def get_config(task: str = "") -> ml_collections.ConfigDict:
    """Few-shot prompts of up to 2,048 tokens."""
    return paper["config"](
        "google/gemma-2-2b",
        "google/gemma-2-27b",
        task,
        form="few_shot",
        settings=sweep(),
        mesh={"data": -1, "model": 8},
        draft_length=1,
        prompt_length=2048,
        max_new_tokens=256,
        timed=20,
    )
