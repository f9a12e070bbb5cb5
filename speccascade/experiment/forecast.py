"""What the stages of an experiment need: said by `--dry_run`, computed from configs and files."""

import os

import jax
import jax.numpy as jnp
import ml_collections
from etils import epath

from speccascade import pairs
from speccascade.evaluate import evaluation, sections
from speccascade.experiment import stages
from speccascade.inputs import paths
from speccascade.models import memory, shapes
from speccascade.sharding.chips import CHIPS
from speccascade.training import given, loop
from speccascade.workdir import checkpoints
from speccascade.workdir.storage import storage

# Of a chip's peak, what training of models this size reaches at best.
_SHARE = 0.4


def describe(config: ml_collections.ConfigDict, workdir: str) -> str:
    """Returns a few lines per stage: what is done, what is left, and what that needs.

    Nothing is written. Models that are fine-tuned need not be there yet, their sources must.

    Raises:
      UserError: a stage cannot be run.
    """
    workdir = paths.plain(workdir)
    stages.check(config, workdir)
    lines = []
    if stages.trains(config):
        for role in stages.TRAINED:
            lines += [f"{role}: {stages.folder(workdir, role)}", *_training(config, role, workdir)]
    place = stages.folder(workdir, "sweep")
    return "\n".join([*lines, f"sweep: {place}", *_sweep(config, workdir, place)])


def _training(config: ml_collections.ConfigDict, role: str, workdir: str) -> list[str]:
    made = stages.training(config, role, workdir)
    c, layout, optimizer = loop.prepare(made)
    source = pairs.load_model(c.init_from, read=False)
    found = given.Given(c.init_from, *source[:3])
    model = given.form(made.get("model"), found.tokenizer.vocab_size, found)
    kept = shapes(model)
    state = jax.eval_shape(optimizer.init, kept)
    grads = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), kept)
    held = [memory.size(tree) / 2**30 for tree in (kept, state, grads)]
    ways = 1 if layout is None else layout.ways("fsdp") * layout.ways("model")
    size = sum(leaf.size for leaf in jax.tree.leaves(kept))
    tokens = c.num_steps * c.batch_size * c.row_length
    work = 6 * size * tokens / _SHARE / 3600
    by_chip = ", ".join(f"{work / chip.flops:,.2g} on {chip.name}" for chip in CHIPS.values())
    done = _step(stages.folder(workdir, role))
    devices = 1 if layout is None else layout.mesh.size
    return [
        f"  {size / 1e6:,.0f}M parameters from {c.init_from}; step {done} of {c.num_steps}, "
        f"{c.batch_size} rows of at most {c.row_length} tokens each",
        f"  {sum(held) / ways:.2f} GiB on each of {devices} devices for weights, optimizer and "
        f"gradients ({', '.join(f'{x / ways:.2f}' for x in held)}), activations besides",
        f"  at most {tokens / 1e9:,.2g}G tokens; chip hours at {_SHARE:.0%} of the peak: {by_chip}",
    ]


def _sweep(config: ml_collections.ConfigDict, workdir: str, place: str) -> list[str]:
    made = stages.sweep(config, workdir)
    if stages.trains(config):
        left = [
            role
            for role in stages.TRAINED
            if _step(stages.folder(workdir, role)) < config.fine_tuning[role].train.num_steps
        ]
        if left:
            plain, settings = sections.read(made)
            counts = plain["evaluate"]["splits"]
            splits = ", ".join(f"{count} examples of {split}" for split, count in counts.items())
            return [
                f"  {len(settings)} settings on {splits}; waits for the {' and the '.join(left)}",
                "  what a slice can hold, and how fast: scripts/tpu_plan.py with this config",
            ]
    sweep = evaluation.prepare(made, weights=False)
    told = [*evaluation.describe(sweep, place).split("\n"), evaluation.estimate(sweep, place)]
    return [f"  {line}" for line in told]


def _step(workdir: str) -> int:
    """Returns how many steps a training has done and saved."""
    with storage(workdir):
        if not epath.Path(os.path.join(workdir, "checkpoints")).exists():
            return 0
    with checkpoints.manager(workdir, read_only=True) as saved:
        return saved.latest_step() or 0
