"""Whole generations, timed with or without the reading of their prompts, and what that says."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import decode, rules
from speccascade.benchmark.clock import Measured, Timed
from speccascade.benchmark.subject import Case, Subject
from speccascade.decode import loop
from speccascade.inference.drafting.lookup import ByLookup
from speccascade.inference.drafting.lookup_or_model import ByLookupOrModel
from speccascade.inference.engine import Request, limits_of
from speccascade.inference.formula import allowed_speedup, expected_tokens
from speccascade.inference.setting import ByModel, Drafting
from speccascade.pairs import Pair


@dataclasses.dataclass(frozen=True)
class Decoding:
    """One batch of prompts, ready to be decoded one way.

    Attributes:
      timed: returns what decodes it to its end or to so many tokens; what is kept are the counts,
        see `decode.Stats`.
      rule: the rule.
      draft_length: N, 0 where one model decodes alone.
      scorer: the role of the model that scores, "drafter" where that decodes alone.
      batch: number of prompts.
      drafting: how the block is drafted.
    """

    timed: Callable[[int], Timed]
    rule: rules.Rule
    draft_length: int
    scorer: str
    batch: int
    drafting: Drafting = ByModel()


@dataclasses.dataclass(frozen=True)
class Program:
    """What a case is compiled from, and its parameters."""

    decoder: decode.Decoder
    params: dict
    rule: rules.Rule
    scorer: str

    def timed(self, rows: decode.Rows) -> Callable[[int], Timed]:
        """Returns the decoding of a batch behind its prompts, which are read once for all runs."""
        read: list[Any] = []

        def state():
            return jax.tree.map(jnp.copy, read[0])  # its buffers are donated

        def warm():
            read[:] = read or [self.prefill(rows)]
            return self.run(_shortened(rows, 1), state())

        def at(most):
            short = _shortened(rows, most)
            return Timed(warm, state, lambda state: self.run(short, state), _counts)

        return at

    def timed_with_prompts(self, rows: decode.Rows) -> Callable[[int], Timed]:
        """Returns the decoding of a batch, prompts included; what is kept are the answers."""

        def run(most):
            short = _shortened(rows, most)
            return self.run(short, self.prefill(short))

        return lambda most: Timed(lambda: run(1), lambda: None, lambda _: run(most), _answers)

    def prefill(self, rows: decode.Rows):
        """Reads the prompts."""
        return loop.prefill(self.decoder, self.params, rows)

    def run(self, rows: decode.Rows, state):
        """Decodes to the end; the state's buffers are donated."""
        return loop.run(self.decoder, self.params, (self.rule,), rows, state)


def _shortened(rows: decode.Rows, most: int) -> decode.Rows:
    return rows._replace(max_new_tokens=jnp.minimum(rows.max_new_tokens, most))


def _counts(state) -> dict[str, np.ndarray]:
    return {k: np.asarray(v) for k, v in state.stats.by_name().items()}


def _answers(state) -> list[list[int]]:
    rows = zip(np.asarray(state.tokens), np.asarray(state.count), strict=True)
    return [tokens[:count].tolist() for tokens, count in rows]


def program_of(subject: Subject, case: Case) -> Program:
    """Returns the program that decodes a case."""
    drafter: decode.Drafter
    setting, room = case.setting, subject.max_new_tokens
    subject = subject.at(case)
    if setting.method.in_blocks:
        rule = jax.device_put(rules.make(setting.rule, **dict(setting.knobs)))
        drafter, own = setting.drafting.drafter(cast(Pair, subject))  # has what it asks for
        size, verifier, scorer = setting.draft_length, setting.verifier, "expert"
    else:
        rule, drafter, own = rules.make("spec"), decode.NoDrafter(), ()
        size, verifier, scorer = 0, "token", setting.method.alone
    decoder = decode.Decoder(subject.models[scorer], drafter, size, room, verifier)
    loop.check(decoder, (rule,))
    params = {"drafter": own, "expert": subject.params[scorer]}
    return Program(decoder, params, rule, scorer)


def rows_of(subject: Subject, case: Case, requests: Sequence[Request]) -> decode.Rows:
    """Returns some of a subject's requests as a batch on the device."""
    setting = case.setting
    rows = decode.make_rows(
        [request.prompt for request in requests],
        stop_table=subject.stop_table,
        max_new_tokens=[request.max_new_tokens for request in requests],
        prompt_slots=subject.prompt_slots,
        temperature=setting.temperature,
        seed=setting.seed,
        example_ids=[request.example_id for request in requests],
        drafter_truncation=limits_of([setting.drafter_truncation] * len(requests)),
        expert_truncation=limits_of([setting.expert_truncation] * len(requests)),
    )
    return jax.device_put(rows)


def prepare(subject: Subject, case: Case, batch: int, num_batches: int) -> list[Decoding]:
    """Returns the decoding of each of the first `num_batches` batches."""
    program = program_of(subject, case)
    decoder = program.decoder
    same = program.rule, decoder.draft_length, program.scorer, batch, case.setting.drafting
    return [
        Decoding(program.timed(rows_of(subject, case, requests)), *same)
        for requests in subject.batches(batch, num_batches)
    ]


def prepare_with_prompts(
    subject: Subject, case: Case, num_prompts: int
) -> list[Callable[[int], Timed]]:
    """Returns, for each of the first prompts, what decodes it alone, to so many tokens.

    The reading of the prompt is timed too. What is kept is the list of one answer's token ids.
    """
    program = program_of(subject, case)
    return [
        program.timed_with_prompts(rows_of(subject, case, requests))
        for requests in subject.batches(1, num_prompts)
    ]


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
    if isinstance(first.drafting, ByLookup):
        # Blocks of what was found or of one token, all scored as if whole.
        scoring = step_time("expert", first.draft_length + 1)
        allowed = allowed_speedup(common[2], 0, scoring, step_time("expert", 1))
        return Speed(*common, 1 - scoring / block, acceptance, None, 0, allowed)
    steps: float = first.draft_length + rules.uses_q(first.rule)
    joined = isinstance(first.drafting, ByLookupOrModel)
    if joined or rules.can_end_draft(first.rule):
        # Its blocks take many numbers of passes: the formula does not hold, and how often the
        # drafter ran for a batch, as opposed to each of its rows, is not recorded.
        if first.batch > 1:
            return Speed(*common, None, acceptance)
        expected, steps = common[2], total["drafter_calls"] / total["expert_calls"]
    drafting = steps * step_time("drafter", 1)
    # How many of a joined lookup's passes read N + 2 tokens is not recorded either: all are taken
    # to read one, which allows a little more than could be. A model's first pass reads two, the
    # last token of the block before among them, where the rule asks for no bonus position.
    if not joined and not rules.uses_q(first.rule):
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
