"""How much is decoded, so that a run ends in time."""

from typing import NamedTuple

from speccascade.benchmark.clock import LEAST_TRIALS
from speccascade.inference.methods import DRAFTER
from speccascade.inference.setting import Setting

LEAST_TOKENS = 32  # of an answer, where the config wants no fewer


class Size(NamedTuple):
    """What is decoded of each case.

    Attributes:
      batches: how many batches of prompts.
      tokens: the most tokens of an answer.
      trials: how often each is timed.
    """

    batches: int
    tokens: int
    trials: int

    @property
    def work(self) -> int:
        """Tokens per row of a batch that all trials decode."""
        return self.batches * self.tokens * self.trials

    def fitted(self, seconds: float, per_token: float) -> "Size":
        """Returns what of it can be done in time: fewer trials first, then batches, then tokens.

        Args:
          seconds: there are.
          per_token: seconds that all cases take for one token of a batch.
        """
        room = max(seconds, 0.0) / per_token  # for `work`
        fewer = self._replace(trials=_fit(self.trials, LEAST_TRIALS, room / self.work))
        fewer = fewer._replace(batches=_fit(self.batches, 1, room / fewer.work))
        return fewer._replace(tokens=_fit(self.tokens, LEAST_TOKENS, room / fewer.work))

    def told(self, batch: int, prompt_slots: int, wanted: "Size") -> str:
        """Returns in words what is decoded, and what more was wanted."""
        less = []
        if self.batches < wanted.batches:
            less.append(f"{wanted.batches * batch} prompts")
        if self.tokens < wanted.tokens:
            less.append(f"{wanted.tokens} tokens")
        limit = f" (not {' of '.join(less)}: benchmark.minutes)" if less else ""
        count = self.batches * batch
        prompts = "1 prompt" if count == 1 else f"{count} prompts"
        return (
            f"{prompts} of at most {prompt_slots} tokens, answers of at most {self.tokens}{limit}"
        )

    def told_trials(self, trials: int) -> str:
        """Returns a sentence on how often each was timed, where `self` was wanted."""
        less = "" if trials == self.trials else f" (not {self.trials}: benchmark.minutes)"
        return f"Medians of {trials} interleaved trials{less}."


def cost(setting: Setting) -> float:
    """Returns about how much of a pass of the expert a setting takes for a token, to plan with."""
    if setting.method is DRAFTER:
        return 0.1
    return 0.75 if setting.method.in_blocks else 1.0


def _fit(wanted: int, least: int, share: float) -> int:
    return min(wanted, max(least, int(wanted * share)))
