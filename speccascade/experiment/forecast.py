"""What the stages of an experiment need: said by `--dry_run`, computed from configs and files."""

import dataclasses
import os

import jax
import ml_collections
from etils import epath

from speccascade import pairs
from speccascade.evaluate import forecast, prepared, sections
from speccascade.experiment import stages
from speccascade.inputs import paths
from speccascade.models import Model, shapes
from speccascade.models.memory import size
from speccascade.plan import subject
from speccascade.sharding.chips import CHIPS, GIB
from speccascade.training import given, loop, memory
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
    c, layout = loop.prepare(made)
    model, known = _form(made, c.init_from)
    teacher = None
    if c.distill_from == stages.folder(workdir, "expert"):  # which need not be there yet
        expert = stages.training(config, "expert", workdir)
        teacher, _ = _form(expert, expert.train.init_from)
    elif c.distill_from:
        teacher = pairs.load_model(c.distill_from, read=False)[0]
    step = loop.make_step(c, model, known, teacher, layout)
    needs = memory.needs(step)
    memory.check(needs)
    weights = sum(leaf.size for leaf in jax.tree.leaves(shapes(model)))
    tokens = c.num_steps * c.batch_size * c.row_length
    work = 6 * weights * tokens / _SHARE / 3600
    by_chip = ", ".join(f"{work / chip.flops:,.2g} on {chip.name}" for chip in CHIPS.values())
    done = _step(stages.folder(workdir, role))
    devices = 1 if layout is None else layout.mesh.size
    held = {k: v for k, v in dataclasses.asdict(needs).items() if v}
    return [
        f"  {weights / 1e6:,.0f}M parameters from {c.init_from}; step {done} of {c.num_steps}, "
        f"{c.batch_size} rows of at most {c.row_length} tokens each",
        f"  {needs.total / GIB:.2f} GiB on each of {devices} devices for "
        f"{', '.join(f'{name} {part / GIB:.2f}' for name, part in held.items())}; activations "
        "besides",
        f"  at most {tokens / 1e9:,.2g}G tokens; chip hours at {_SHARE:.0%} of the peak: {by_chip}",
    ]


def _form(made: ml_collections.ConfigDict, source: str) -> tuple[Model, int]:
    """Returns a model as it is trained, and how many token ids its tokenizer has."""
    found = given.Given(source, *pairs.load_model(source, read=False)[:3])
    known = found.tokenizer.vocab_size
    return given.form(made.get("model"), known, found), known


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
                *_decoding(config),
                "  what a slice can hold, and how fast: --topology=SLICE",
            ]
    sweep = prepared.prepare(made, weights=False)
    return [f"  {line}" for line in forecast.describe(sweep, place).split("\n")]


def _decoding(config: ml_collections.ConfigDict) -> list[str]:
    """Returns a line on the memory of decoding, where the config says what to plan for."""
    if any(config.get(name) is None for name in ("models", "mesh", "plan")):
        return []
    planned = subject.load(config, config.evaluate.batch_size)
    found = {role: pairs.load_model(config.pair[role], read=False)[0] for role in pairs.ROLES}
    planned = dataclasses.replace(planned, models=found).stored_as(planned.weights)
    inputs = planned.on(jax.devices(), "this machine")
    caches = size((inputs.state.drafter, inputs.state.expert)) / GIB
    weights = {role: size(tree) / GIB for role, tree in inputs.params.items()}
    parts = ", ".join(f"{role}'s weights {held:.2f}" for role, held in weights.items())
    return [
        f"  {sum(weights.values()) + caches:.2f} GiB on each of {len(jax.devices())} devices for "
        f"{parts}, caches {caches:.2f} of {planned.batch_size} rows, {planned.prompt_length} + "
        f"{planned.max_new_tokens} tokens each; temporaries besides",
    ]


def _step(workdir: str) -> int:
    """Returns how many steps a training has done and saved."""
    with storage(workdir):
        if not epath.Path(os.path.join(workdir, "checkpoints")).exists():
            return 0
    with checkpoints.manager(workdir, read_only=True) as saved:
        return saved.latest_step() or 0
