"""What a sample is worth: by its file, by a task, by references and a metric, or by sameness."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import ml_collections

from speccascade import tasks
from speccascade.certify.forms import Sample
from speccascade.certify.reading import Answers, listed
from speccascade.errors import UserError
from speccascade.inputs import plain_text, text_files, values
from speccascade.tasks import columns
from speccascade.tasks.metrics import METRICS

Score = float | Sequence[float]
SAME_TEXT = "same_text"


class Scoring(NamedTuple):
    """How samples are scored.

    Attributes:
      what: the score's name.
      score: of a sample; raises UserError where it cannot be scored.
      aggregate: what makes one figure of all scores, see `tasks.aggregate`.
      full_score: that figure where every answer is perfect; the worst is 0.
    """

    what: str
    score: Callable[[Sample], Score]
    aggregate: str = "mean"
    full_score: float = 1.0


def given(sources: Sequence[Answers], field: str | None, full_score: float) -> Scoring:
    """Takes the scores that the files have.

    Args:
      sources: all that will be scored.
      field: which; None for the one that all have.
      full_score: of a perfect answer; the worst is 0.

    Raises:
      UserError: there is none, or it is not said which.
    """
    if field is None:
        field = _only_field(sources)

    def score(sample: Sample) -> float:
        if field not in sample.scores:
            has = ", ".join(sample.scores) or "none"
            raise UserError(f"{sample.where} has no score {field!r}; its own: {has}")
        value = sample.scores[field]
        try:
            found = float(value) if isinstance(value, bool) else values.number(field, value)
        except UserError:
            raise UserError(
                f"{sample.where}: {field} must be one number, not {plain_text.show(value)}; score "
                "the texts instead: --references and --metric"
            ) from None
        if not 0 <= found <= full_score:
            raise UserError(
                f"{sample.where}: {field}={found:g} is outside 0 to {full_score:g}; correct it, or "
                "give --full_score"
            )
        return found

    return Scoring(field, score, full_score=full_score)


def _only_field(sources: Sequence[Answers]) -> str:
    there = [set(source.samples[0].scores) for source in sources]
    common = set.intersection(*there)
    if "score" in common:
        return "score"
    if len(common) == 1:
        return common.pop()
    if common:
        raise UserError(f"the files have several scores; give --score: {', '.join(sorted(common))}")
    without = next((s.source for s, own in zip(sources, there, strict=True) if not own), None)
    if without is None:
        raise UserError("the files have no score in common; give --references or --task")
    raise UserError(
        f"nothing says how good the answers of {without} are: give --references and --metric, "
        f"--task, or --metric={SAME_TEXT}, or put a field `score` there"
    )


def by_references(path: str, name: str | None) -> Scoring:
    """Scores texts by a file of JSON lines with `id` and `answers`.

    Raises:
      UserError: the file is not as it must be, or the metric unknown.
    """
    metric = METRICS[values.choice("--metric", name, METRICS)]
    accepted: dict[str, tuple[str, ...]] = {}
    for line, row in text_files.read_rows(path):
        where = f"{path} line {line}"
        try:
            if isinstance(row.get("id"), bool | float | None):
                raise UserError("a reference has an id and answers")
            own = columns.texts(row, "answers")
            metric.check(own)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if str(row["id"]) in accepted:
            raise UserError(f"{where}: id {row['id']} has a reference already; keep one of them")
        accepted[str(row["id"])] = own

    def score(sample: Sample) -> Score:
        return _of_text(sample, accepted, path, lambda text, own: metric.score(text, own))

    return Scoring(name, score, metric.aggregate, metric.full_score)


def by_task(task: tasks.Task, examples: Iterable[tasks.Example]) -> Scoring:
    """Scores texts as a task does, by the ids of its examples."""
    own = {str(example.id): example for example in examples}

    def score(sample: Sample) -> Score:
        return _of_text(sample, own, f"the task {task.name}", task.score)

    return Scoring(task.name, score, task.aggregate, task.full_score)


def make_task(name: str, path: str | None, metric: str | None) -> tasks.Task:
    """Returns a task that is named on the command line."""
    fields = {"name": name, "path": path, "metric": metric}
    given = {field: value for field, value in fields.items() if value}
    return tasks.make(ml_collections.ConfigDict(given))


def by_sameness(before: Answers) -> Scoring:
    """Scores 1 where a text is the one of `before`, so that the loss is the share that differs.

    Raises:
      UserError: `before` has several texts for a prompt.
    """
    texts: dict[str, str | None] = {}
    double = []
    for sample in before.samples:
        if texts.setdefault(sample.id, sample.text) != sample.text:
            double.append(sample.id)
    if double:
        raise UserError(
            f"--metric={SAME_TEXT} needs one text a prompt in {before.source}; it has several for "
            f"{listed(double)}"
        )

    def score(sample: Sample) -> Score:
        return _of_text(
            sample, texts, before.name, lambda text, other: float(text.strip() == other.strip())
        )

    return Scoring(SAME_TEXT, score)


def _of_text(sample: Sample, known: Mapping, whose: str, score: Callable) -> Score:
    if sample.text is None:
        raise UserError(f"{sample.where} has no text to score")
    if sample.id not in known:
        raise UserError(f"{sample.where}: id {sample.id} is none of {whose}")
    return score(sample.text, known[sample.id])
