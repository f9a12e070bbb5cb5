"""Metrics by name, for texts with accepted answers that a user brings.

A new one is a row in `METRICS`: questions of one's own and `scripts/certify.py` have it.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from speccascade.errors import UserError
from speccascade.inputs import plain_text
from speccascade.tasks import answers, overlap
from speccascade.tasks.final_number import final_number
from speccascade.tasks.mentions import contains, terms
from speccascade.tasks.numbers import number
from speccascade.tasks.thoughts import answer as without_thoughts


class Metric(NamedTuple):
    """How a text is scored by accepted answers.

    Attributes:
      score: of the text, what a model thought aloud before it included, and of the answers.
      needs: what an answer must have to be accepted ever, in words.
      has: whether an answer has that.
      aggregate: the function of `tasks.aggregate` that makes one figure of all scores.
      full_score: that figure where every text is perfect; the worst is 0.
      several: whether there may be several answers to one prompt.
      scored_with: distributions whose version can change a score.
    """

    score: Callable[[str, Sequence[str]], float | tuple[float, ...]]
    needs: str
    has: Callable[[str], object]
    aggregate: str = "mean"
    full_score: float = 1.0
    several: bool = True
    scored_with: tuple[str, ...] = ()

    def check(self, accepted: Sequence[str]) -> None:
        """Raises UserError where no text could be worth anything by some answer."""
        if not accepted or not all(map(self.has, accepted)):
            raise UserError(
                f"answers must be a list of at least one text, each with {self.needs}, and not "
                f"{plain_text.show(list(accepted))}"
            )
        if len(accepted) > 1 and not self.several:
            raise UserError(f"this metric takes one answer a prompt; there are {len(accepted)}")


def _contains(text: str, accepted: Sequence[str]) -> float:
    return float(any(contains(text, answer) for answer in accepted))


def _number(text: str) -> int | float | Fraction | None:
    return final_number(text) if "####" in text else number(text)


def _final_number(text: str, accepted: Sequence[str]) -> float:
    found = final_number(text)
    return float(found is not None and found in [_number(answer) for answer in accepted])


def _rouge_2(text: str, accepted: Sequence[str]) -> float:
    return max(overlap.rouge_2(text, answer) for answer in accepted)


def _bleu(text: str, accepted: Sequence[str]) -> tuple[float, ...]:
    return overlap.bleu_statistics(text.strip(), accepted[0])


def _of_answer(score: Callable) -> Callable:
    return lambda text, accepted: score(without_thoughts(text), accepted)


_WORD = "a word besides articles and punctuation"
METRICS = {
    "contains": Metric(_of_answer(_contains), _WORD, terms),
    "exact_match": Metric(_of_answer(answers.exact_match), _WORD, answers.squad),
    "f1": Metric(_of_answer(answers.f1), _WORD, answers.squad),
    "final_number": Metric(
        _final_number, "a number, alone or behind ####", lambda text: _number(text) is not None
    ),
    "rouge_2": Metric(
        _of_answer(_rouge_2), "a word", str.strip, full_score=100.0, scored_with=("rouge-score",)
    ),
    "bleu": Metric(_of_answer(_bleu), "a word", str.strip, "bleu", 100.0, False, ("sacrebleu",)),
}
