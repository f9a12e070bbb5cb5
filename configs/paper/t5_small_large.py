"""T5 v1.1 small drafts for large: one of the paper's pairs, N = 5, fine-tuned per task there.

python scripts/tpu_plan.py --config=configs/paper/t5_small_large.py --topology=v4:2x2x1
python scripts/evaluate.py --distributed --config=configs/paper/t5_small_large.py:wmt14 \\
    --config.pair.drafter=DIR --config.pair.expert=DIR --workdir=gs://BUCKET/runs/NAME

DIR: models fine-tuned on the task. The hub's v1.1, which stand here, have been taught no task, and
their answers mean nothing; they are what is planned.

The paper, as its readers summarise it: N = 5, also 3 and 7, temperatures 0, 0.1, 0.5 and 1, whole
validation splits, time on 500 examples, three trials, on TPU v4. The alphas and the test split are
ours. `--dry_run` says what all of it costs. For less, `--config.evaluate.splits.validation=500`,
`--config.evaluate.timing.num_examples=20`, or other settings, the expert's
own decoding among them: `--config.evaluate.settings='({"method": "autoregressive_expert"},
{"rule": "spec", "draft_length": 5})'`.
"""

import pathlib
import runpy

import ml_collections

paper = runpy.run_path(str(pathlib.Path(__file__).with_name("common.py")))


def sweep() -> tuple[dict, ...]:
    """The paper's methods at its N and temperatures."""
    return paper["sweep"](draft_lengths=(3, 5, 7), temperatures=(0.0, 0.1, 0.5, 1.0))


def get_config(task: str = "") -> ml_collections.ConfigDict:
    """Articles and sentences of up to 1,024 tokens."""
    return paper["config"](
        "google/t5-v1_1-small",
        "google/t5-v1_1-large",
        task,
        form="t5",
        settings=sweep(),
        mesh={"data": -1, "model": 4},
        draft_length=5,
        prompt_length=1024,
        max_new_tokens=128,
        timed=500,
    )
