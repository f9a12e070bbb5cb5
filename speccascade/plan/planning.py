"""The whole plan of one pair, slice by slice, as Markdown."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import ml_collections

from speccascade.errors import UserError
from speccascade.models import costs
from speccascade.plan import fit, report, roofline, topology, training, training_report
from speccascade.plan.program import Program, TooLarge, compile_both
from speccascade.plan.subject import Inputs, Subject, load
from speccascade.plan.topology import Topology


def run(
    config: ml_collections.ConfigDict,
    say: Callable[[str], None],
    *,
    slices: str,
    batch_size: int | None = None,
    weights: str = "bfloat16",
    acceptance: float = 0.8,
    confirm: bool = False,
) -> None:
    """Plans a pair and says what was found, slice by slice.

    Args:
      config: see configs/paper/gemma2_2b_9b.py; with `fine_tuning` that is planned too.
      say: told the Markdown of a slice as soon as it is there.
      slices: topologies with commas between, or "all".
      batch_size: in place of the config's.
      weights: how both models keep their matrices, one of `subject.WEIGHTS`.
      acceptance: the probability that a draft token is kept, for the time of a token.
      confirm: whether the largest batch is compiled too.

    Raises:
      UserError: the config or an argument is not as it must be, or libtpu is missing.
    """
    if not 0 <= acceptance <= 1:
        raise UserError(f"acceptance={acceptance} must be in [0, 1]")
    subject = load(config, batch_size, weights)
    # JAX would keep programs for slices that are not there, but cannot read them back.
    jax.config.update("jax_enable_compilation_cache", False)
    for slice_ in [topology.describe(name) for name in topology.names(slices)]:
        trainings = training.load(config, subject, slice_)
        found = plan(subject, slice_, acceptance, confirm)
        others = [] if found.fits else fit.alternatives(subject, slice_)
        say(report.render(found, others))
        taught = [training.plan(one) for one in trainings]
        for one in taught:
            say(training_report.render(one))
        if taught:
            say(training_report.together(found, taught))


def plan(subject: Subject, slice_: Topology, acceptance: float, confirm: bool) -> report.Plan:
    """Returns the plan of a pair on one slice; see `run`."""
    inputs = subject.inputs(slice_)
    parts = fit.parts(inputs, slice_)
    hbm = slice_.chip.hbm_bytes
    largest = parts.largest_rows(hbm) * (subject.batch_size // parts.rows)
    asked = inputs if parts.arguments <= hbm else None  # a compiler could only refuse the rest
    most = None
    if asked is not None and confirm and largest:
        most = dataclasses.replace(subject, batch_size=largest).inputs(slice_)
    with ThreadPoolExecutor(2) as pool:  # compiling leaves a second core idle
        program, largest_program = pool.map(_attempt, (asked, most))
    return report.Plan(
        subject=subject,
        slice_=slice_,
        mesh=dict(inputs.decoder.layout.mesh.shape),
        parts=parts,
        program=program,
        largest=largest,
        largest_program=largest_program,
        block=block(subject, slice_, inputs),
        acceptance=acceptance,
    )


def _attempt(inputs: Inputs | None) -> Program | TooLarge | None:
    try:
        return None if inputs is None else compile_both(inputs)
    except TooLarge as error:
        return error


def block(subject: Subject, slice_: Topology, inputs: Inputs) -> roofline.Block:
    """Returns the least times of a block's acts."""
    size = subject.setting.draft_length

    def step(role, tokens):
        model, params = subject.models[role], inputs.params[role]
        cache = getattr(inputs.state, role)
        cost = costs.forward(model, params, cache, tokens)
        return roofline.act(cost, slice_)

    drafts = size + subject.bonus
    checked = costs.verification(inputs.device_rows, inputs.device_vocab, size + 1, drafts)
    return roofline.Block(
        first_draft=step("drafter", 1 if subject.bonus else 2),
        draft=step("drafter", 1),
        drafts=drafts,
        expert=step("expert", size + 1),
        verify=roofline.act(checked, slice_),
        expert_step=step("expert", 1),
    )
