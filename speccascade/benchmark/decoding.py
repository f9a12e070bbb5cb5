"""Whole generations, timed after their prefill, and what their times say."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from speccascade import decode, rules
from speccascade.benchmark.clock import Measured, Timed
from speccascade.benchmark.subject import Case, Subject
from speccascade.decode import loop
from speccascade.inference.formula import allowed_speedup, expected_tokens


@dataclasses.dataclass(frozen=True)
class Decoding:
    """One batch of prompts, ready to be decoded one way.

    Attributes:
      timed: decodes it to its end; the prompts are read in its preparation.
      rule: the rule.
      draft_length: N, 0 where one model decodes alone.
      scorer: the role of the model that scores, "drafter" where that decodes alone.
      batch: number of prompts.
    """

    timed: Timed
    rule: rules.Rule
    draft_length: int
    scorer: str
    batch: int


def prepare(subject: Subject, case: Case, batch: int, num_prompts: int) -> list[Decoding]:
    """Returns the decoding of each batch of the first `num_prompts` prompts."""
    setting, room = case.setting, subject.max_new_tokens
    params = subject.params_of(case)
    scorer = "expert"
    if setting.method.in_blocks:
        rule = jax.device_put(rules.make(setting.rule, **dict(setting.knobs)))
        decoder = decode.Decoder(
            subject.models["expert"],
            decode.ModelDrafter(subject.models["drafter"]),
            setting.draft_length,
            room,
            setting.verifier,
        )
    else:
        rule = rules.make("spec")
        scorer = setting.method.alone
        decoder = decode.Decoder(subject.models[scorer], decode.NoDrafter(), 0, room)
        params = {"drafter": (), "expert": params[scorer]}
    loop.check(decoder, (rule,))

    def one(requests) -> Decoding:
        rows = decode.make_rows(
            [request.prompt for request in requests],
            stop_table=subject.stop_table,
            max_new_tokens=[request.max_new_tokens for request in requests],
            prompt_slots=subject.prompt_slots,
            temperature=setting.temperature,
            seed=setting.seed,
            example_ids=[request.example_id for request in requests],
        )
        rows = jax.device_put(rows)
        timed = Timed(
            prepare=lambda: loop.prefill(decoder, params, rows),
            run=lambda state: loop.run(decoder, params, (rule,), rows, state),
            keep=lambda state: {k: np.asarray(v) for k, v in state.stats.by_name().items()},
        )
        return Decoding(timed, rule, decoder.draft_length, scorer, batch)

    starts = range(0, num_prompts, batch)
    return [one(subject.requests[start : start + batch]) for start in starts]


@dataclasses.dataclass(frozen=True)
class Speed:
    """What was measured of a case at a batch size; None where a method has no such thing.

    Attributes:
      tokens_per_second: emitted tokens of all rows.
      block_seconds: time of one pass of the decode loop.
      tokens_per_block: tokens emitted per row and block.
      busy: mean share of a batch's rows that were not done yet; the formula takes it to be 1.
      neither: share of a block that is neither model.
      acceptance: share of tested draft tokens that were kept.
      expected: tokens per block by the formula, from the acceptance.
      drafter_steps: drafter passes per block.
      allowed: the speed-up over the expert that acceptance and step costs allow.
    """

    tokens_per_second: float
    block_seconds: float
    tokens_per_block: float
    busy: float
    neither: float | None
    acceptance: float | None = None
    expected: float | None = None
    drafter_steps: float | None = None
    allowed: float | None = None


def speed(
    decodings: Sequence[Decoding],
    measured: Sequence[Measured],
    step_time: Callable[[str, int], float],
) -> Speed:
    """Works out what the times of a case's batches say.

    Args:
      decodings: the case's batches.
      measured: their times and counts.
      step_time: seconds of one model pass, by role and tokens per row.
    """
    first = decodings[0]
    seconds = sum(m.seconds for m in measured)
    total = {key: sum(float(m.result[key].sum()) for m in measured) for key in measured[0].result}
    # A batch goes on until its last row is done.
    passes = sum(float(m.result["expert_calls"].max()) for m in measured)
    block, busy = seconds / passes, total["expert_calls"] / (first.batch * passes)
    common = total["emitted"] / seconds, block, total["emitted"] / total["expert_calls"], busy
    if first.draft_length == 0:
        return Speed(*common, 1 - step_time(first.scorer, 1) / block)
    acceptance = 1 - total["rejected"] / max(total["tested"], 1)
    expected = expected_tokens(acceptance, first.draft_length)
    steps = first.draft_length + rules.uses_q(first.rule)
    if rules.can_end_draft(first.rule):
        # Its blocks are of many lengths: the formula does not hold, and how often the drafter ran
        # for a batch, as opposed to each of its rows, is not recorded.
        if first.batch > 1:
            return Speed(*common, None, acceptance)
        expected, steps = common[2], total["drafter_calls"] / total["expert_calls"]
    drafting = steps * step_time("drafter", 1)
    if not rules.uses_q(first.rule):  # the first pass also reads the last token of the block before
        drafting += step_time("drafter", 2) - step_time("drafter", 1)
    scoring = step_time("expert", first.draft_length + 1)
    return Speed(
        *common,
        1 - (drafting + scoring) / block,
        acceptance,
        expected,
        steps,
        allowed_speedup(expected, drafting, scoring, step_time("expert", 1)),
    )
