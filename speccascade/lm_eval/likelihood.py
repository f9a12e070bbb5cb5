"""Log-likelihoods: a setting's target at temperature 1, teacher-forced, on texts of others."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import rules as rules_lib
from speccascade.decode.drafters.interface import AT_POSITIONS, ROWS
from speccascade.errors import UserError
from speccascade.evaluate import teacher_forced
from speccascade.inference.engine import prompt_slots
from speccascade.inference.methods import SPECULATIVE
from speccascade.inference.padding import padded
from speccascade.inference.setting import Setting
from speccascade.pairs import Pair
from speccascade.sharding import hosts
from speccascade.sharding.active import over_vocabulary, use

Text = tuple[Sequence[int], Sequence[int]]  # a prompt's ids, and those of what follows it


def target(setting: Setting) -> tuple[Setting, tuple[str, str]]:
    """Returns a setting whose rule gives the target at a prefix, and the models it is made of.

    Raises:
      UserError: what a setting writes next is no function of the text so far.
    """
    method, role = setting.method, setting.method.alone
    if role is not None:
        limits = setting.drafter_truncation if role == "drafter" else setting.expert_truncation
        return Setting(SPECULATIVE, "spec", expert_truncation=limits), (role, role)
    if method.has_rule:
        own = Setting(
            SPECULATIVE,
            setting.rule,
            setting.knobs,
            drafter_truncation=setting.drafter_truncation,
            expert_truncation=setting.expert_truncation,
        )
        if not rules_lib.definition(setting.rule).uses_q:
            return own, ("expert", "expert")
        if setting.drafting.has_q:
            return own, ("drafter", "expert")
    raise UserError(
        f"setting {setting} has no log-likelihoods: what it writes next is no function of the text "
        "before it; give it tasks that generate, or another setting"
    )


def scores(
    pair: Pair, setting: Setting, texts: Sequence[Text], batch_size: int
) -> list[tuple[float, bool]]:
    """Returns each text's log-likelihood, in nats, and whether greedy decoding would write it.

    A token that the target excludes makes it minus infinity.

    Args:
      pair: the models.
      setting: whose target; its temperature is not read.
      texts: prompts of at least one token, and what is scored behind each.
      batch_size: the most texts that are scored at a time.

    Raises:
      UserError: the setting has no target at a prefix, or logits are not finite.
    """
    own, roles = target(setting)
    # Without limits a model's own distribution has a logarithm that does not underflow.
    plain = roles[0] == roles[1] and not own.expert_truncation
    found: list[tuple[float, bool]] = [(0.0, True)] * len(texts)
    for places, shape in _batches(texts, batch_size, pair.expert.vocab_size):
        batch = [texts[i] for i in places]
        logs, greedy = _score(pair, own, roles, plain, batch, shape)
        for place, (_, answer), log, best in zip(places, batch, logs, greedy, strict=True):
            value = float(log[: len(answer)].sum(dtype=np.float64))
            if np.isnan(value):
                raise UserError(
                    "the models' logits are not finite; look at the checkpoints and the dtype"
                )
            found[place] = value, bool(best[: len(answer)].all())
    return found


def _batches(
    texts: Sequence[Text], batch_size: int, vocab_size: int
) -> Iterator[tuple[list[int], tuple[int, int, int]]]:
    """Yields texts of like length, longest first, and the shape [B, P, A] that they are padded to.

    Texts of no tokens are in none.
    """

    def room(i: int) -> tuple[int, int]:
        prompt, answer = texts[i]
        return prompt_slots(len(prompt)), padded(len(answer), step=8, steps=8)

    left = sorted((i for i in range(len(texts)) if texts[i][1]), key=room, reverse=True)
    while left:
        prompt, answer = room(left[0])
        rows = min(batch_size, max(1, teacher_forced.MOST_LOGITS // (answer * vocab_size)))
        alike = [i for i in left[:rows] if room(i) == (prompt, answer)]
        yield alike, (rows, prompt, answer)
        left = left[len(alike) :]


def _score(pair, own, roles, plain, batch, shape) -> tuple[np.ndarray, np.ndarray]:
    rows, *widths = shape
    ids = [np.zeros((rows, width), np.int32) for width in widths]
    length = np.ones(rows, np.int32)
    for row, text in enumerate(batch):
        length[row] = len(text[0])
        for array, part in zip(ids, text, strict=True):
            array[row, : len(part)] = part
    prompt, answer = ids
    logits = {
        role: teacher_forced.answer_logits(pair, role, prompt, length, answer)
        for role in set(roles)
    }
    asked = tuple(
        teacher_forced.asked(dataclasses.replace(own, temperature=t), rows) for t in (1.0, 0.0)
    )
    both = (logits[role] for role in roles)
    made = hosts.gather(_judge(pair.layout, plain, asked, *both, answer))
    found, greedy = (np.asarray(x)[: len(batch)] for x in made)
    return found, greedy


@partial(jax.jit, static_argnums=(0, 1))
def _judge(layout, plain, asked, drafter_logits, expert_logits, ids):
    with use(layout and layout.rows):
        where = (ROWS, AT_POSITIONS, AT_POSITIONS, ROWS)
        run = over_vocabulary(partial(_at, plain), where, (ROWS, ROWS))
        return run(asked, drafter_logits, expert_logits, ids)


def _at(plain, vocab, asked, drafter_logits, expert_logits, ids):
    warm, greedy = (
        teacher_forced.targets(vocab, each, drafter_logits, expert_logits)[0].pi for each in asked
    )
    if plain:
        shifted = expert_logits - vocab.max(expert_logits)
        log = vocab.at(shifted, ids) - jnp.log(vocab.sum(jnp.exp(shifted)))[..., 0]
    else:
        log = jnp.log(vocab.at(warm, ids))
    return log, vocab.at(greedy, ids) > 0.5


def windows(tokens: Sequence[int], first: int, most: int | None) -> Iterator[Text]:
    """Yields parts of a long text, each token scored once with as much before it as there is room.

    Args:
      tokens: of the text.
      first: stands before it.
      most: the most tokens of a part, what stands before it included; None for no limit.
    """
    whole = [first, *tokens]
    size = len(whole) if most is None else min(most, len(whole))
    end = 1
    while end < len(whole):
        stop = min(end + size - 1, len(whole))
        yield whole[stop - size : end], whole[end:stop]  # the last part is moved to be as long
        end = stop
