"""Highlights of news, CNN/DailyMail without anonymised names (See et al. 2017): ROUGE-2."""

from collections.abc import Mapping
from typing import Any

from speccascade.tasks import columns, overlap
from speccascade.tasks.benchmark_task import BenchmarkTask, Part, Problem
from speccascade.tasks.example import Example


class CnnDailyMail(BenchmarkTask):
    """1 shot (articles are long); ROUGE-2 F1 in percent. The highlights stand in one line."""

    name = "cnn_dailymail"
    hub = columns.Hub("abisee/cnn_dailymail", "3.0.0")
    parts = {
        "train": Part("train"),
        "validation": Part("validation"),
        "test": Part("test"),
    }
    shots = 1
    full_score = 100.0
    scored_with = ("rouge-score",)
    template = "Article: {}\nSummary:"
    prefix = "summarize: "

    def may_cut(self, question: str) -> tuple[int, int]:
        return 0, len(question)

    def problem(self, row: Mapping[str, Any]) -> Problem | None:
        article = columns.text(row, "article").strip()
        highlights = " ".join(columns.text(row, "highlights").split())
        return Problem(article, highlights, highlights) if article and highlights else None

    def score(self, text: str, example: Example) -> float:
        return overlap.rouge_2(text, example.reference)
