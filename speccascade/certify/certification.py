"""Behind `scripts/certify.py`: from what is named on the command line to a text."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Sequence

from speccascade.certify import reading, scoring, summary, workdirs
from speccascade.certify.measured import Measured, aligned, by_prompt
from speccascade.certify.reading import Answers
from speccascade.certify.scoring import Scoring
from speccascade.certify.verdict import judge
from speccascade.certify.workdirs import Workdir
from speccascade.errors import UserError
from speccascade.inference.setting import Setting
from speccascade.tuning.choice import MaxQualityLoss
from speccascade.workdir import results


@dataclasses.dataclass(frozen=True)
class Options:
    """What is asked for, beside the answers; names are those of the flags.

    Attributes:
      max_quality_loss: the promise, in the score's units.
      confidence: of the verdicts.
      task: whose metric scores the texts; None for another way.
      task_path: where its data are, see its `path`.
      split: of the task's examples, or of a workdir's rows.
      references: a file of accepted answers.
      metric: by which texts are compared with them, with the texts before, or with the answers of
        questions of one's own.
      score: the files' own field of scores; None for the only one.
      full_score: of those.
      filter: of files of lm-evaluation-harness.
      ordered: see `verdict.judge`.
    """

    max_quality_loss: float
    confidence: float = 0.95
    task: str | None = None
    task_path: str | None = None
    split: str = "test"
    references: str | None = None
    metric: str | None = None
    score: str | None = None
    full_score: float = 1.0
    filter: str | None = None
    ordered: bool = False


def certify(before: str, afters: Sequence[str], options: Options) -> str:
    """Compares saved answers with others; nothing is written.

    Args:
      before: a file, several with commas between, or a workdir, `WORKDIR#SETTING`.
      afters: the same, of each setting; a workdir alone for all of its settings.
      options: how.

    Raises:
      UserError: something cannot be read, scored or aligned, or tells nothing.
    """
    _check(options)
    workdir = functools.cache(lambda path: workdirs.read(path, options.split))
    sources = [_Source(source, options.filter, workdir) for source in (before, *afters)]
    how = _scoring(sources, options)
    MaxQualityLoss(options.max_quality_loss, how.full_score)  # a loss that may be promised
    first, *others = sources
    base, setting = first.before(how)
    found = [one for source in others for one in source.afters(how, setting)]
    base, *found = _named_apart([base, *found])
    settings = [aligned(base, one) for one in found]
    verdicts = judge(
        base, settings, how, options.max_quality_loss, options.confidence, options.ordered
    )
    return summary.write(
        base, verdicts, how, options.max_quality_loss, options.confidence, options.ordered
    )


def _check(options: Options) -> None:
    if not 0 < options.confidence < 1:
        raise UserError(f"--confidence={options.confidence:g} must be between 0 and 1")
    if not 0 < options.full_score < float("inf"):
        raise UserError(f"--full_score={options.full_score:g} must be a positive number")
    named = {name: getattr(options, name) for name in ("task", "references", "score")}
    ways = [f"--{name}" for name, value in named.items() if value]
    if options.metric == scoring.SAME_TEXT:
        ways.append("--metric")
    elif bool(options.metric) != bool(options.references) and not options.task:
        raise UserError("--references and --metric go together")
    if len(ways) > 1:
        raise UserError(f"{' and '.join(ways)} are several ways to score; give one of them")
    if options.task_path and not options.task:
        raise UserError("--task_path needs --task")


class _Source:
    """Where the answers of one setting, or of all in a workdir, come from.

    Attributes:
      answers: of files; None for a workdir.
      workdir: None for files.
    """

    def __init__(self, source: str, filter_name: str | None, read: Callable[[str], Workdir]):
        found = results.named(source)
        self.answers: Answers | None = None
        self.workdir: Workdir | None = None
        self._words = ""
        if found is None:
            self.answers = reading.read(source, filter_name)
        else:
            path, self._words = found
            self.workdir = read(path)

    def before(self, how: Scoring) -> tuple[Measured, Setting | None]:
        """Returns what is compared with, and of a workdir which setting it is."""
        if self.workdir is None:
            return by_prompt(self.answers, how.score), None
        setting = self.workdir.before(self._words)
        return self.workdir.measured(setting), setting

    def afters(self, how: Scoring, before: Setting | None) -> list[Measured]:
        """Returns the settings that are compared with it."""
        if self.workdir is None:
            return [by_prompt(self.answers, how.score)]
        return [self.workdir.measured(s) for s in self.workdir.afters(self._words, before)]


def _scoring(sources: Sequence[_Source], options: Options) -> Scoring:
    """Returns how everything is scored: rows of workdirs have the scores of their task."""
    own = [source.workdir for source in sources if source.workdir]
    if own:
        if options.task or options.references or options.score or options.metric:
            raise UserError(
                f"the rows of {own[0].path} have scores of their task; score them anew with "
                "scripts/score.py, or give files of answers"
            )
        if len({workdir.scoring.what for workdir in own}) > 1:
            raise UserError("the workdirs are of different tasks")
        return own[0].scoring
    files = [source.answers for source in sources]
    if options.task:
        task = scoring.make_task(options.task, options.task_path, options.metric)
        return scoring.by_task(task, task.examples(options.split))
    if options.references:
        return scoring.by_references(options.references, options.metric)
    if options.metric:
        return scoring.by_sameness(files[0])
    return scoring.given(files, options.score, options.full_score)


def _named_apart(settings: Sequence[Measured]) -> list[Measured]:
    """Returns settings whose names differ: those that did not are called by their sources."""
    counts = Counter(one.name for one in settings)
    return [
        dataclasses.replace(one, name=one.source) if counts[one.name] > 1 else one
        for one in settings
    ]
