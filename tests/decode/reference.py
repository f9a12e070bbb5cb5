"""A decode engine without caches, loops on the device or cleverness: what the real one must equal.

Every block scores the whole text of every row from its first token (`Model.forward`) and is written
out row by row in Python. Behind a row's text stands noise, which must not matter. Distributions,
rules, verifier and random numbers are the real ones: they have tests of their own.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import rules as rules_lib
from speccascade import sampling, verify
from speccascade.decode import Decoder, Output, Rows, Stats
from speccascade.decode.stopping import STOP
from speccascade.randomness import Role, RowKeys, uniforms

STATS = Stats._fields  # a single model drafts: "drafter_calls" are its own


class Block(NamedTuple):
    """One block of every row; rows that were done before it are not `active`.

    Attributes:
      active: bool [B].
      draft: int [B, N].
      length: int [B], tokens drafted.
      q: [B, N + 1, V].
      p: [B, N + 1, V].
      pi: [B, N + 1, V].
      accepted: int [B].
      emitted: int [B], tokens added to the row.
      ended: bool [B], whether an end-of-sequence or a stop string ended the row in this block.
    """

    active: np.ndarray
    draft: np.ndarray
    length: np.ndarray
    q: np.ndarray
    p: np.ndarray
    pi: np.ndarray
    accepted: np.ndarray
    emitted: np.ndarray
    ended: np.ndarray


class Decoded(NamedTuple):
    """What a batch became, row by row.

    Attributes:
      tokens: token ids.
      logprob: log pi of each.
      expert_logprob: log p1 of each.
      finished: whether the row met an end.
      stats: counts, by name.
      blocks: the blocks.
    """

    tokens: list[list[int]]
    logprob: list[list[float]]
    expert_logprob: list[list[float]]
    finished: list[bool]
    stats: dict[str, np.ndarray]
    blocks: list[Block]


@partial(jax.jit, static_argnums=0)
def logits_at(model, params, text, prompt_length, at):
    logits = model.forward(params, text, prompt_length)
    return jnp.take_along_axis(logits, at[..., None], axis=1)


distribution = jax.jit(sampling.distribution)
confidence = jax.jit(sampling.confidence)
draw = jax.jit(sampling.draw)
run_verify = jax.jit(verify.verify, static_argnames="method")
noise = jax.jit(uniforms, static_argnums=(2, 3))


@jax.jit
def targets_of(rules, q, p, q1, p1):
    d = rules_lib.Distributions(q, p, q1, p1)
    return [rules_lib.apply(rule, d) for rule in rules]


def by_row(choices, rows: Rows):
    return np.stack([np.asarray(choices[r])[b] for b, r in enumerate(np.asarray(rows.rule_index))])


def decode(decoder: Decoder, params, rules, rows: Rows) -> Decoded:
    """Decodes a batch; rows' logits must be finite."""
    rows = Rows(*(jax.tree.map(np.asarray, field) for field in rows))
    batch, slots = rows.prompt.shape
    size, drafter, expert = decoder.draft_length, decoder.drafter.model, decoder.expert
    shape = batch, slots + decoder.max_new_tokens + size
    text = np.random.default_rng(0).integers(0, expert.vocab_size, shape)
    for b, n in enumerate(rows.prompt_length):
        text[b, :n] = rows.prompt[b, :n]
    starts, keys = rows.prompt_length, RowKeys(rows.seed, rows.example_id)
    bonus = any(rules_lib.uses_q(rule) for rule in rules)
    out = Decoded(
        *([[] for _ in range(batch)] for _ in range(3)),
        finished=[False] * batch,
        stats={name: np.zeros(batch) for name in STATS},
        blocks=[],
    )
    stop_state, active = np.zeros(batch, int), rows.max_new_tokens > 0

    while active.any():
        count = np.array([len(t) for t in out.tokens], np.int32)
        last = rows.prompt_length + count - 1  # the newest token's place in the text
        rooms = np.minimum(last[:, None] + np.arange(size + 1), text.shape[1] - 1)

        # Draft.
        u = np.asarray(noise(keys, count, Role.DRAFT, size))
        tried, draft = text.copy(), np.zeros((batch, size), np.int32)
        length, drafting = np.zeros(batch, np.int32), np.ones(batch, bool)
        q, q1 = [], []
        for i in range(size + 1):
            logits = logits_at(drafter, params["drafter"], tried, starts, rooms)[:, i]
            q.append(np.asarray(distribution(logits, rows.temperature, rows.drafter_truncation)))
            q1.append(np.asarray(confidence(logits)))
            if i < size:
                ends = by_row([rules_lib.ends_draft(rule, q1[-1]) for rule in rules], rows)
                drafting &= ~ends
                length += drafting
                draft[:, i] = draw(q[-1], u[:, i])
                tried[np.arange(batch), np.minimum(last + 1 + i, text.shape[1] - 1)] = draft[:, i]
        q, q1 = np.stack(q, 1), np.stack(q1, 1)

        # Score.
        logits = logits_at(expert, params["expert"], tried, starts, rooms)
        p = np.asarray(distribution(logits, rows.temperature, rows.expert_truncation))
        p1 = np.asarray(confidence(logits))

        # Verify.
        targets = targets_of(rules, q, p, q1, p1)
        pi = by_row([t.pi for t in targets], rows)
        deferral = by_row([t.deferral for t in targets], rows)
        accepted, following = run_verify(
            None,
            draft,
            q[:, :size],
            pi,
            length=length,
            method=decoder.verifier,
            uniforms=verify.Uniforms(
                noise(keys, count, Role.ACCEPT, size), noise(keys, count, Role.TOKEN, 1)[:, 0]
            ),
        )
        accepted, following = np.asarray(accepted), np.asarray(following)

        # Commit.
        before, ended, emitted = active.copy(), np.zeros(batch, bool), np.zeros(batch, int)
        for b in np.flatnonzero(active):
            kept = accepted[b]
            for i, token in enumerate([*draft[b, :kept], following[b]]):
                text[b, last[b] + 1 + i] = token
                out.tokens[b].append(int(token))
                out.logprob[b].append(np.log(pi[b, i, token]))
                out.expert_logprob[b].append(np.log(p1[b, i, token]))
                emitted[b] += 1
                stop_state[b] = rows.stop_table[stop_state[b], token]
                ended[b] = stop_state[b] == STOP
                if ended[b] or len(out.tokens[b]) == rows.max_new_tokens[b]:
                    active[b] = False
                    break
            out.finished[b] = bool(ended[b])
            for name, value in {
                "emitted": emitted[b],
                "expert_calls": 1,
                "drafter_calls": length[b] + 1 if bonus else size,
                "drafted": length[b],
                "accepted": min(kept, emitted[b]),
                "deferral_sum": deferral[b, : emitted[b]].sum(),
            }.items():
                out.stats[name][b] += value
            for i in range(min(length[b], emitted[b])):
                out.stats["tested"][b] += 1
                out.stats["tv_sum"][b] += np.maximum(pi[b, i] - q[b, i], 0).sum()
                if i == kept:
                    out.stats["rejected"][b] += 1
                    break
        out.blocks.append(Block(before, draft, length, q, p, pi, accepted, emitted, ended))
    return out


def check(output: Output, expected: Decoded, stats: tuple[str, ...] = STATS) -> None:
    """Raises AssertionError unless a decoded batch is what it must be."""
    output = jax.device_get(output)
    counts = output.num_tokens
    assert counts.tolist() == [len(t) for t in expected.tokens]
    for b, n in enumerate(counts):
        assert output.tokens[b, :n].tolist() == expected.tokens[b], f"row {b}"
        added = [block.emitted[b] for block in expected.blocks if block.active[b]]
        assert np.trim_zeros(output.blocks[b]).tolist() == added, f"row {b}"
        for name in ("logprob", "expert_logprob"):
            np.testing.assert_allclose(
                getattr(output, name)[b, :n], getattr(expected, name)[b], atol=2e-4, err_msg=name
            )
    assert output.finished.tolist() == expected.finished
    assert not output.invalid.any()
    for name in stats:
        np.testing.assert_allclose(
            output.stats.by_name()[name], expected.stats[name], atol=1e-4, err_msg=name
        )


def check_records(records: Iterator, expected: Decoded) -> None:
    """Raises AssertionError unless the blocks of a trace are what they must be."""
    records = jax.device_get([record for _, record in records])
    assert len(records) == len(expected.blocks)
    for record, block in zip(records, expected.blocks, strict=True):
        on = block.active
        np.testing.assert_array_equal(record.draft.length[on], block.length[on])
        np.testing.assert_array_equal(record.emitted, np.where(on, block.emitted, 0))
        np.testing.assert_array_equal(record.verdict.num_accepted[on], block.accepted[on])
        drafted = on[:, None] & (np.arange(block.draft.shape[1]) < block.length[:, None])
        np.testing.assert_array_equal(
            np.where(drafted, record.draft.tokens, 0), np.where(drafted, block.draft, 0)
        )
        # What lies beyond the end of a row's block is nobody's.
        reached = on[:, None] & (np.arange(block.q.shape[1]) <= block.length[:, None])
        for name, found, whole in (
            ("q", record.draft.q.q, block.q),
            ("p", record.p, block.p),
            ("pi", record.pi, block.pi),
        ):
            width = found.shape[1]
            at = reached[:, :width, None]
            np.testing.assert_allclose(
                np.where(at, found, 0), np.where(at, whole[:, :width], 0), atol=1e-5, err_msg=name
            )
