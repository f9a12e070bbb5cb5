"""What acceptance and step costs allow (Leviathan et al. 2023, section 3)."""


def expected_tokens(acceptance: float, draft_length: int) -> float:
    """Returns the expected tokens of a block, `(1 - a^(N+1)) / (1 - a)`.

    Args:
      acceptance: a, the probability that a tested draft token is kept, independent per position.
      draft_length: N.
    """
    return sum(acceptance**i for i in range(draft_length + 1))


def allowed_speedup(tokens: float, drafting: float, scoring: float, expert_step: float) -> float:
    """Returns the speed-up over the expert's own decoding if a block were nothing but model passes.

    Args:
      tokens: expected tokens of a block.
      drafting: time of the drafter passes that a block takes, `D c`.
      scoring: time of one expert pass over N + 1 tokens, `S`.
      expert_step: time of one expert pass over one token, the unit of the formula's c and S.
    """
    return tokens * expert_step / (drafting + scoring)
