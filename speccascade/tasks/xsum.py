"""One-sentence summaries of BBC news, XSum (Narayan et al. 2018): ROUGE-2."""

from collections.abc import Mapping
from typing import Any

from speccascade.tasks import columns, overlap
from speccascade.tasks.benchmark_task import BenchmarkTask, Part, Problem
from speccascade.tasks.example import Example


class XSum(BenchmarkTask):
    """1 shot (articles are long); ROUGE-2 F1 in percent."""

    name = "xsum"
    # Its main branch is a script, which `datasets` no longer runs.
    hub = columns.Hub("EdinburghNLP/xsum", revision="refs/convert/parquet")
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
        article, summary = (columns.text(row, k).strip() for k in ("document", "summary"))
        return Problem(article, summary, summary) if article and summary else None

    def score(self, text: str, example: Example) -> float:
        return overlap.rouge_2(text, example.reference)
