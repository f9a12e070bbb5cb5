"""A drafter made here, as docs/extend.md says: the engine takes it and every rule follows its law
over it.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from speccascade.decode.drafters import Dense, Draft
from speccascade.decode.drafters.interface import WithoutModel
from speccascade.sampling import draw
from tests import rule_oracle
from tests.decode import path_law, toys

PARAMS = toys.tables(path_law.VOCAB, seed=3)
SHARES = (0.5, 0.2, 0.3)


@dataclasses.dataclass(frozen=True)
class Unigram(WithoutModel):
    """Draws every token from the same shares, whatever stands before it."""

    shares: tuple[float, ...]

    def check(self, expert, size, rules, drafting):
        """Takes everything."""

    def uniforms(self, size):
        """Takes one per token."""
        return size

    def draft(self, params, state, request, ends_draft, bonus):
        """Drafts N tokens; see `Drafter.draft`."""
        batch, size = request.uniforms.shape
        q = jnp.broadcast_to(jnp.array(self.shares), (batch, size + 1, len(self.shares)))
        length = jnp.full((batch,), size)
        if ends_draft is not None:
            length = jnp.where(ends_draft(q[:, 0]), 0, length)
        tokens = draw(q[:, :size], request.uniforms)
        return Draft(tokens, Dense(q, q), length, {}, length >= 0), state


def law(setting, params):
    """Returns the law of sequences that the rule's pi implies, `[V**L]`."""
    _, p, _, p1 = path_law.tables_of(setting, params)
    q = np.broadcast_to(np.array(SHARES), p.shape)
    pi, _ = rule_oracle.targets(setting.rule, setting.knobs, q, p, q, p1)
    return path_law.enumeration.target_law(pi[None], path_law.LIMIT)[0]


def test_every_rule_follows_its_law_over_a_drafter_of_this_file():
    decode = path_law.speculative(path_law.decoder("token", drafter=Unigram(SHARES)), PARAMS)
    chosen = [s for s in path_law.settings() if s.temperature == 1]
    path_law.check(decode, PARAMS, chosen, draws=500, batches=8, law=law)
