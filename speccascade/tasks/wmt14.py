"""English to German, WMT14 (Bojar et al. 2014): BLEU of newstest2014, validated on newstest2013."""

from collections.abc import Mapping
from typing import Any

from speccascade.tasks import columns, overlap
from speccascade.tasks.benchmark_task import BenchmarkTask, Part, Problem
from speccascade.tasks.example import Example


class Wmt14(BenchmarkTask):
    """5 shots; BLEU in percent, sacrebleu's default ("13a" words, case kept)."""

    name = "wmt14"
    hub = columns.Hub("wmt/wmt14", "de-en")
    parts = {
        "train": Part("train"),
        "validation": Part("validation"),
        "test": Part("test"),
    }
    shots = 5
    aggregate = "bleu"
    full_score = 100.0
    scored_with = ("sacrebleu",)
    template = "English: {}\nGerman:"
    prefix = "translate English to German: "

    def problem(self, row: Mapping[str, Any]) -> Problem | None:
        english, german = (columns.text(row, "translation", k).strip() for k in ("en", "de"))
        return Problem(english, german, german) if english and german else None

    def score(self, text: str, example: Example) -> tuple[float, ...]:
        return overlap.bleu_statistics(text.strip(), example.reference)
