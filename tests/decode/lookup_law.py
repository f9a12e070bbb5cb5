"""Lookup in plain Python, and the law of sequences over it: by definition, and as decoding has it.

The law by definition is the product of pi along a sequence, pi being the rule's target of the
one-hot q that the prefix gives, or p where the prefix gives none. The other chains blocks: every
prefix is drafted from by `LookupDrafter.draft`, decided on by `decide` and verified by
`verify.law`. A draft is certain, so a block is one draft with the outcomes of its verification.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import rules as rules_lib
from speccascade import verify
from speccascade.decode import LookupDrafter
from speccascade.decode import decide as decide_lib
from speccascade.decode.drafters import Request
from tests import enumeration, rule_oracle
from tests.decode import path_law
from tests.decode.path_law import LIMIT, VOCAB, Limits, Setting

RULES = tuple(
    name for name, row in rules_lib.RULES.items() if not row.reads_q1 and name != "drafter"
)
law_of_blocks = jax.jit(verify.law, static_argnames="method")
PROMPTS = ((2,), (0, 2, 0), (2, 0, 2, 2, 0))


def followed(text: Sequence[int], max_ngram: int, min_ngram: int) -> int | None:
    """Returns what followed the longest of the text's last n-grams, where it stood first."""
    for n in range(min(max_ngram, len(text) - 1), min_ngram - 1, -1):
        for start in range(len(text) - n):
            if list(text[start : start + n]) == list(text[-n:]):
                return text[start + n]
    return None


def settings() -> list[Setting]:
    """Returns settings of every rule that works: plain, cold and truncated, and greedy."""
    made = [s for s in path_law.settings() if s.rule in RULES]
    plain = [s for s in made if s.expert == Limits() and s.temperature == 1]
    return made + [s._replace(temperature=0.0) for s in plain]


# ---- by definition ----


def law(drafter: LookupDrafter, setting: Setting, params, prompts=PROMPTS) -> np.ndarray:
    """Returns the probabilities of answers to each prompt, `[P, V**LIMIT]`, filled up with EOS."""
    return law_of(targets(drafter, setting, params, prompts)[0], prompts)


def law_of(pi: np.ndarray, prompts=PROMPTS) -> np.ndarray:
    """Returns the same from pi behind each prompt and beginning of an answer."""
    pi = pi.reshape(len(prompts), -1, VOCAB)
    place = {own: i for i, own in enumerate(prefixes())}
    probs = np.ones((len(prompts), VOCAB**LIMIT))
    for i, sequence in enumerate(path_law.SEQUENCES.tolist()):
        for t, token in enumerate(sequence):
            if enumeration.EOS in sequence[:t]:  # filled up
                probs[:, i] *= token == enumeration.EOS
            else:
                probs[:, i] *= pi[:, place[tuple(sequence[:t])], token]
    return probs


def targets(drafter, setting, params, prompts=PROMPTS) -> tuple[np.ndarray, np.ndarray]:
    """Returns pi and the deferral behind each prompt and beginning of an answer, in that order."""
    _, p, _, p1 = path_law.tables_of(setting, {**params, "drafter": params["expert"]})
    texts = [(*prompt, *own) for prompt in prompts for own in prefixes()]
    contexts = [context_of(text) for text in texts]
    drafted = [followed(text, drafter.max_ngram, drafter.min_ngram) for text in texts]
    missing = np.array([token is None for token in drafted])
    one_hot = np.eye(VOCAB)[[token or 0 for token in drafted]]
    p, p1 = p[contexts], p1[contexts]
    pi, deferral = rule_oracle.targets(setting.rule, setting.knobs, one_hot, p, one_hot, p1)
    pi = np.where(missing[:, None], p, pi)
    return pi, np.where(missing & ~np.isnan(deferral), 1.0, deferral)


def prefixes():
    """Yields the beginnings of answers that go on, as tuples."""
    for length in range(LIMIT):
        for own in itertools.product(range(VOCAB), repeat=length):
            if enumeration.EOS not in own:
                yield own


def context_of(text: Sequence[int]) -> int:
    """Returns the row of a table that a text leads to."""
    before, last = (0, *text)[-2:]
    return before * VOCAB + last


# ---- as decoding has it ----


def blocks(drafter, size: int, chosen: Sequence[Setting], params, prompts=PROMPTS):
    """Drafts and decides on a block behind every prompt, beginning of an answer, and setting.

    Returns:
      The keys (setting, prompt, beginning), the draft, q and the decision, one entry each.
    """
    keys = list(itertools.product(range(len(chosen)), prompts, prefixes()))
    texts = [[*prompt, *own] for _, prompt, own in keys]
    batch = [chosen[s] for s, _, _ in keys]
    made, index = path_law.make_rules(batch)
    rows = path_law.make_batch(batch, 0)
    table = jnp.asarray(params["expert"])
    slots = max(map(len, texts)) + size + 1
    # What stands behind a text must not matter: noise.
    text = np.random.default_rng(0).integers(0, VOCAB, (len(texts), slots)).astype(np.int32)
    for row, own in zip(text, texts, strict=True):
        row[: len(own)] = own
    length = np.array([len(own) for own in texts], np.int32)
    contexts = np.array([context_of(own) for own in texts])
    bonus = any(rules_lib.uses_q(rule) for rule in made)
    none = np.zeros_like(length)

    @jax.jit
    def run(text, length, rows, made):
        request = Request(
            text, length, none, none, length - 1, jnp.zeros((len(length), 0)), none, None, size
        )
        draft, _ = drafter.draft((), (), request, None, bonus)
        context, logits = contexts, [table[contexts]]
        for i in range(size):
            context = (context * VOCAB + draft.tokens[:, i]) % len(table)
            logits.append(table[context])
        logits = jnp.stack(logits, 1)
        noise = verify.Uniforms(jnp.zeros((len(length), size)), jnp.zeros(len(length)))
        decision = decide_lib.decide("token", False, made, rows, draft, logits, noise)
        return draft, draft.q.spread(decision.p).q[:, :size], decision

    return keys, *run(text, length, rows._replace(rule_index=np.array(index)), made)


def sequence_laws(
    keys, draft, q, decision, size: int, method: str, weights=None
) -> dict[tuple, np.ndarray]:
    """Returns the law of answers `[V**LIMIT]` by setting and prompt.

    Where a block has several drafts, each a row of its own, `weights` are their probabilities.
    """
    accepted, after = law_of_blocks(
        draft.tokens, q, decision.pi, length=draft.length, method=method
    )
    tokens, accepted, after = (np.asarray(x, np.float64) for x in (draft.tokens, accepted, after))
    weights = np.ones(len(keys)) if weights is None else weights
    at: dict[tuple, list[int]] = defaultdict(list)
    for i in np.flatnonzero(weights):
        at[keys[i]].append(i)
    laws = {}
    for setting, prompt in dict.fromkeys((s, prompt) for s, prompt, _ in keys):
        mass: dict[tuple, float] = defaultdict(float)
        mass[()] = 1.0
        done = np.zeros(VOCAB**LIMIT)
        for own in prefixes():  # shorter ones first
            rows = at[setting, prompt, own]
            for i, kept, token in itertools.product(rows, range(size + 1), range(VOCAB)):
                chance = weights[i] * accepted[i, kept]
                if mass[own] and chance and after[i, kept, token]:
                    answer = (*own, *map(int, tokens[i, :kept]), token)[:LIMIT]
                    share = mass[own] * chance * after[i, kept, token]
                    if enumeration.EOS in answer:
                        answer = answer[: answer.index(enumeration.EOS)]
                        answer += (enumeration.EOS,) * (LIMIT - len(answer))
                    if len(answer) == LIMIT:
                        done[np.array(answer) @ path_law.POWERS] += share
                    else:
                        mass[answer] += share
        laws[setting, prompt] = done
    return laws


def check(drafter, size: int, methods: Sequence[str], params, chosen=None) -> None:
    """Raises AssertionError unless every setting's answers, behind every prompt, are of its law."""
    chosen = settings() if chosen is None else chosen
    keys, draft, q, decision = blocks(drafter, size, chosen, params)
    expected = [law(drafter, setting, params) for setting in chosen]
    np.testing.assert_allclose(np.sum(expected, -1), 1, atol=1e-9)
    for method in methods:
        found = sequence_laws(keys, draft, q, decision, size, method)
        for (s, prompt), own in found.items():
            whole = expected[s][PROMPTS.index(prompt)]
            message = f"{chosen[s]} {prompt} {method}"
            np.testing.assert_allclose(own, whole, atol=2e-5, err_msg=message)


def half_and_half(drafter: LookupDrafter, setting: Setting, params) -> np.ndarray:
    """Returns the law of `path_law.make_batch`'s rows, half of which begin with one token."""
    return law(drafter, setting, params, ((0,), (0, 0))).mean(0)
