"""The training of a pair's models, compiled for a slice that is not there."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, cast

import jax
import ml_collections
import numpy as np

from speccascade import models
from speccascade.inputs import values
from speccascade.models.interface import Model
from speccascade.pairs import ROLES
from speccascade.plan.program import TooLarge, compile_lowered
from speccascade.plan.subject import Subject
from speccascade.plan.topology import Topology
from speccascade.sharding import for_training, hlo
from speccascade.training import loop, memory
from speccascade.training.data import Problems
from speccascade.training.objective import Fixed, Objective
from speccascade.training.step import Step, Work, check_batch, check_layout

_EXAMPLE = "configs/paper/t5_small_large.py"


@dataclasses.dataclass(frozen=True)
class Training:
    """The training of one model of a pair on a slice, in the largest shapes that it meets.

    Attributes:
      role: of the model.
      name: the pair's.
      step: what its steps are compiled for.
      batch: NumPy arrays, as a step takes them, whose every text is as long as one may be.
      num_steps: how many are taken.
      slice_: where.
    """

    role: str
    name: str
    step: Step
    batch: dict[str, np.ndarray]
    num_steps: int
    slice_: Topology

    @property
    def work(self) -> Work:
        """What a step has to do."""
        return self.step.objective.work(self.batch)


@dataclasses.dataclass(frozen=True)
class Program:
    """Both programs of a step, compiled; bytes are those of one device.

    Attributes:
      gradients: temporaries of the first, which makes gradients.
      update: temporaries of the second, which makes updates of them.
      code: of both, which lie in the same memory.
      collectives: what the first exchanges.
      seconds: what compiling took.
    """

    gradients: int
    update: int
    code: int
    collectives: list[hlo.Collective]
    seconds: float


def load(config: ml_collections.ConfigDict, subject: Subject, slice_: Topology) -> list[Training]:
    """Reads what a config says of its models' training, without weights or texts; may be nothing.

    Args:
      config: with `fine_tuning` as `experiment.run` takes it.
      subject: the pair that the same config describes.
      slice_: where it would run.

    Raises:
      UserError: the config is not as it must be, or does not divide over the slice.
    """
    if config.get("fine_tuning") is None:
        return []
    values.section("fine_tuning", config.fine_tuning, ROLES, _EXAMPLE)
    made = {role: _model(config.fine_tuning[role], subject.models[role]) for role in ROLES}
    return [
        _training(config.fine_tuning[role], role, made, subject, slice_)
        for role in ("expert", "drafter")
    ]


def _model(section: Mapping[str, Any], published: Model) -> Model:
    """Returns a model of the published one's form as it is trained, in float32."""
    form = {**models.describe(published), "weight_dtype": None}
    if not (section.get("train") or {}).get("lora"):  # else they stay as they are
        form["param_dtype"] = "float32"
    return models.build({**form, **(section.get("model") or {})})


def _training(section, role, made, subject, slice_) -> Training:
    values.section(f"fine_tuning.{role}", section, ["train"], _EXAMPLE)
    loop.check_section(section.train)
    c = ml_collections.FrozenConfigDict(section.train)
    layout = for_training(section.get("mesh"), slice_.devices)
    check_batch("train.batch_size", c.batch_size, c.get("accumulate", 1), layout)
    model, teacher = made[role], made["expert"] if c.get("distill_from") else None
    check_layout(layout, model)
    step = loop.make_step(c, model, model.vocab_size, teacher, layout)
    rows = c.batch_size
    prompt = np.full(rows, min(subject.prompt_length, c.row_length - 1))
    length = np.minimum(prompt + subject.max_new_tokens, c.row_length)
    longest = Problems(np.zeros((rows, c.row_length), np.int32), prompt, length)
    batch = cast(Objective, step.objective).batch(longest, np.arange(rows))
    return Training(role, subject.name, step, batch, c.num_steps, slice_)


def compile_step(training: Training) -> Program:
    """Compiles a step.

    Raises:
      TooLarge: it does not fit into a device's memory.
    """
    start = time.perf_counter()
    step = training.step
    fixed = Fixed(memory.teacher(step), memory.frozen(step))
    lowered = step.lower(training.batch, fixed, memory.trained(step))
    gradients, update = map(compile_lowered, lowered)
    seconds = time.perf_counter() - start
    made, kept = gradients.memory_analysis(), update.memory_analysis()
    return Program(
        gradients=made.temp_size_in_bytes,
        update=kept.temp_size_in_bytes,
        code=made.generated_code_size_in_bytes + kept.generated_code_size_in_bytes,
        collectives=hlo.collectives(gradients.as_text()),
        seconds=seconds,
    )


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was found out about a training.

    Attributes:
      training: which.
      needs: what lies in a device's memory throughout, by arithmetic.
      program: as compiled; the compiler's refusal; None where it was not asked.
    """

    training: Training
    needs: memory.Needs
    program: Program | TooLarge | None

    @property
    def total(self) -> int:
        """Bytes that are needed on a device."""
        match self.program:
            case Program() as program:
                more = max(program.gradients, program.update)
                return self.needs.total + more + program.code
            case TooLarge() as error:
                return max(self.needs.total, error.needed)
        return self.needs.total

    @property
    def fits(self) -> bool:
        """Whether there is room for them."""
        room = self.training.slice_.chip.hbm_bytes
        return isinstance(self.program, Program) and self.total <= room


def plan(training: Training) -> Plan:
    """Returns the plan of a training; what cannot fit by arithmetic is not compiled."""
    needs = memory.needs(training.step)
    program: Program | TooLarge | None = None
    if needs.total <= training.slice_.chip.hbm_bytes:
        try:
            program = compile_step(training)
        except TooLarge as error:
            program = error
    return Plan(training, needs, program)


def whole(training: Training, collectives: list[hlo.Collective]) -> list[hlo.Collective]:
    """Returns the collectives that bring a device more of the weights than it should have.

    Fully sharded data parallelism asks for them as `mesh.model` cuts them, and along `fsdp` alone.
    """
    layout = training.step.layout
    if layout is None:
        return []
    gathered, entire = set(), set()
    for leaf in jax.tree.leaves(training.step.shapes()[0]):
        if leaf.ndim > 1:
            axes = (*leaf.sharding.spec, *[None] * leaf.ndim)
            cuts = [layout.ways(axis) if axis == "model" else 1 for axis in axes]
            gathered.add(tuple(n // cut for n, cut in zip(leaf.shape, cuts)))  # noqa: B905
            entire.add(leaf.shape)

    def is_too_much(one):
        held = {array.shape for array in one.arrays}
        sideways = one.kind == "all-gather" and one.group != layout.ways("fsdp")
        return held & (entire - gathered) or sideways and held & gathered

    reduced = ("all-reduce", "reduce-scatter")  # of activations and gradients
    return [one for one in collectives if one.kind not in reduced and is_too_much(one)]
