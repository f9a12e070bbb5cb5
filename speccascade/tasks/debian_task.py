"""English to German, and summaries, of Debian's package descriptions; terms in `tasks.debian`.

Near duplicates remain: the packages of different software say the same of themselves in similar
words ("This package contains the documentation of ..."), so these texts are easier than their
number suggests. All packages of one software belong to one split, and a text that several of them
have belongs to one alone. Debian 12 gives 16,966 pairs of paragraphs (15,052 to train on, 872 and
1,042 to validate and test), 19,970 pairs of their sentences and of synopses to train on too, and
33,228 summaries (29,411, 1,926 and 1,891).
"""

import functools
from collections.abc import Mapping
from typing import Any

import ml_collections

from speccascade.tasks import overlap
from speccascade.tasks.benchmark_task import BenchmarkTask, Part, Problem
from speccascade.tasks.debian import descriptions, lists
from speccascade.tasks.example import Example


class _DebianTask(BenchmarkTask):
    """A task of the lists in `path` (default "runs/debian"), fetched if they are not there.

    Otherwise as any benchmark; without shots if the config does not ask for some.
    """

    parts = {split: Part(split) for split in descriptions.SPLITS}
    shots = 0

    def __init__(self, config: ml_collections.ConfigDict):
        super().__init__(config)
        self._path = self._path or "runs/debian"

    def problem(self, row: tuple[str, str]) -> Problem:
        source, target = row
        return Problem(source, target, target)

    def _rows(self, of: str) -> list[tuple[str, str]]:
        return self._splits[of]

    def _pairs(self, parsed: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns texts and what is to be written of each, by split."""
        raise NotImplementedError

    @functools.cached_property
    def _splits(self) -> Mapping[str, Any]:
        texts = lists.read(self._path)
        parsed = {language: descriptions.parse(text, language) for language, text in texts.items()}
        return self._pairs(parsed)


class DebianEnDe(_DebianTask):
    """A paragraph of a description, English to German: BLEU in percent."""

    name = "debian_en_de"
    aggregate = "bleu"
    full_score = 100.0
    scored_with = ("sacrebleu",)
    template = "English: {}\nGerman:"
    prefix = "translate English to German: "

    def score(self, text: str, example: Example) -> tuple[float, ...]:
        return overlap.bleu_statistics(text.strip(), example.reference)

    def _pairs(self, parsed):
        return descriptions.translations(parsed["en"], parsed["de"])


class DebianSummaries(_DebianTask):
    """The synopsis of a long description, of which 120 words are read: ROUGE-2 F1 in percent."""

    name = "debian_summaries"
    max_words = 120
    full_score = 100.0
    scored_with = ("rouge-score",)
    template = "Description: {}\nSynopsis:"
    prefix = "summarize: "

    def score(self, text: str, example: Example) -> float:
        return overlap.rouge_2(text, example.reference)

    def may_cut(self, question: str) -> tuple[int, int]:
        return 0, len(question)

    def _pairs(self, parsed):
        return descriptions.summaries(parsed["en"])
