"""The whole benchmark of one pair, as Markdown."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import ml_collections

from speccascade import pairs
from speccascade.benchmark import clock, comparison, decoding, steps, table
from speccascade.benchmark import peer as peers
from speccascade.benchmark.progress import Progress
from speccascade.benchmark.size import Size, cost
from speccascade.benchmark.subject import ROLES, Case, Subject, case, load
from speccascade.errors import UserError
from speccascade.inference.methods import DRAFTER, EXPERT
from speccascade.inference.reading import entries_of
from speccascade.inference.setting import Setting
from speccascade.inputs import paths, values
from speccascade.models import memory
from speccascade.workdir import provenance

_NUMBERS = ("num_examples", "max_new_tokens", "step_repeats", "trials")
_STEPS_SECONDS = 1.0  # of one timing of passes, where one pass is not longer
_LISTS = ("batch_sizes", "step_tokens")
_EXAMPLE = "configs/synthetic.py"


def run(
    config: ml_collections.ConfigDict,
    say: Callable[[str], None],
    profile: str = "",
    peer: str = "",
) -> None:
    """Benchmarks a pair and says the tables line by line, batch size by batch size.

    Args:
      config: `benchmark`, and `synthetic` or `pair` and `task`; see configs/synthetic.py.
      say: told each part of the Markdown as soon as it is there.
      profile: directory for a trace of one warm generation per method; empty for none.
      peer: "transformers" for a comparison with that library instead; see `comparison.py`.

    Raises:
      UserError: the config is not as it must be, or the other library cannot do the like.
    """
    profile = paths.on_disk(profile, "a profile") if profile else ""
    cases = read_cases(config)
    lists = {k: values.wholes(f"benchmark.{k}", config.benchmark[k], 1) for k in _LISTS}
    section = ml_collections.ConfigDict({**config.benchmark.to_dict(), **lists})
    if peer:
        peers.check(peer, cases, profile)
    sizes = (1,) if peer else section.batch_sizes
    batches = {batch: -(-section.num_examples // batch) for batch in sizes}
    with Progress(say, len(batches)) as progress:
        subject = load(config, max(batch * number for batch, number in batches.items()))
        passes, shapes = _shapes(subject, cases, section)
        for batch in batches:
            wide = [(subject.models[role], batch, n, shapes["slots"]) for role, n in passes]
            needed = max(memory.of_pass(*each) for each in wide)
            told = f"benchmark.batch_sizes={batch}"
            memory.check(told, needed, "lower it, or benchmark.max_new_tokens")
        progress.say(_header(subject))
        for i, batch in enumerate(batches):
            progress.begin_part()
            deadline = progress.elapsed + (60 * section.minutes - progress.elapsed) / (
                len(batches) - i
            )
            wanted = Size(batches[batch], subject.max_new_tokens, section.trials)
            if peer:
                comparison.run(subject, cases, wanted, progress, deadline)
            else:
                _run_batch(subject, cases, batch, wanted, section, progress, deadline)
        if profile:
            _trace(subject, cases, batches, profile)
            progress.say(f"Trace: {profile}")


def read_cases(config: ml_collections.ConfigDict) -> list[Case]:
    """Returns the cases, both models' own decoding first; raises UserError for a bad config."""
    values.section("", config, ["benchmark"], _EXAMPLE)
    needed = (*_NUMBERS, *_LISTS, "minutes", "settings")
    section = values.section("benchmark", config.benchmark, needed, _EXAMPLE)
    for name in _NUMBERS:
        values.whole(f"benchmark.{name}", section[name], 1)
    if not values.number("benchmark.minutes", section["minutes"]) > 0:
        raise UserError(f"benchmark.minutes={section['minutes']} must be above 0")
    entries = entries_of("benchmark.settings", section["settings"])
    named = {} if "synthetic" in config else pairs.named_drafters(config.get("pair", ""))
    cases = [case(entry, "synthetic" in config, named) for entry in entries]
    temperatures = {c.setting.temperature for c in cases}
    if len(temperatures) != 1:
        raise UserError(
            "benchmark.settings must be of one temperature, that of the expert's decoding"
        )
    (temperature,) = temperatures
    alone = [Setting(method, temperature=temperature) for method in (EXPERT, DRAFTER)]
    return [*(Case(setting, None) for setting in alone), *cases]


def _header(subject: Subject) -> str:
    sizes = ", ".join(f"{role} {subject.size(role) / 1e6:.3g}M" for role in ROLES)
    cut = sum(request.cut > 0 for request in subject.requests)
    shortened = f"; {cut} of {len(subject.requests)} prompts cut to the pair's lengths"
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(subject.params) if leaf.ndim > 1}
    return (
        f"### {subject.name}: {sizes} parameters, {', '.join(sorted(dtypes))}\n\n"
        f"{provenance.machine()}; {provenance.library()}{shortened if cut else ''}\n"
    )


def _run_batch(
    subject: Subject,
    cases: list[Case],
    batch: int,
    wanted: Size,
    section: ml_collections.ConfigDict,
    progress: Progress,
    deadline: float,
) -> None:
    """Measures and says the tables of one batch size."""
    passes, repeats, pass_seconds = _passes(subject, cases, batch, section, progress)
    ready = {c: decoding.prepare(subject, c, batch, wanted.batches) for c in cases}
    per_token = pass_seconds * sum(cost(c.setting) for c in cases)
    first = {(str(c),): found[0].timed(1) for c, found in ready.items()}
    clock.warm({**passes, **first}, progress, wanted.work * per_token)
    seconds = deadline - progress.elapsed - wanted.trials * len(passes) * repeats * pass_seconds
    size = wanted.fitted(seconds, per_token)
    told = size.told(batch, subject.prompt_slots, wanted)
    progress.say(f"Batch {batch}: {told}; times without the prompt.\n")
    calls = {
        (c, i): found[i].timed(size.tokens)
        for c, found in ready.items()
        for i in range(size.batches)
    }
    clock.warm({(str(c), i): call for (c, i), call in calls.items() if i}, progress)

    def guess(name) -> float:
        what, _ = name
        if isinstance(what, Case):
            return size.tokens * pass_seconds * cost(what.setting)
        return repeats * pass_seconds

    known = clock.measure({**passes, **calls}, size.trials, guess, progress, deadline)
    trials = _say_tables(known, ready, repeats, section.step_tokens, size.batches, progress)
    progress.say(f"\n{wanted.told_trials(trials)}\n")


def _passes(
    subject: Subject,
    cases: list[Case],
    batch: int,
    section: ml_collections.ConfigDict,
    progress: Progress,
) -> tuple[dict[tuple[str, int], clock.Timed], int, float]:
    """Returns calls of model passes by role and width, how many each makes, and seconds of one."""
    passes, shapes = _shapes(subject, cases, section)
    shapes["batch"] = batch
    progress.show(0.0, "compiling a pass of the expert")
    expert = subject.models["expert"], subject.params["expert"]
    seconds = steps.seconds(*expert, **shapes, tokens=1)
    repeats = max(1, min(section.step_repeats, int(_STEPS_SECONDS / seconds)))
    calls = {
        (role, width): steps.step(
            subject.models[role], subject.params[role], **shapes, tokens=width, repeats=repeats
        )
        for role, width in passes
    }
    return calls, repeats, seconds


def _shapes(
    subject: Subject, cases: list[Case], section: ml_collections.ConfigDict
) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Returns the passes that are timed, by role and width, and where they stand in a cache."""
    lengths = {c.setting.draft_length or 0 for c in cases}
    widths = sorted({1, 2, *section.step_tokens, *(n + 1 for n in lengths)})
    room = subject.prompt_slots + subject.max_new_tokens
    shapes = {
        "position": subject.prompt_slots + subject.max_new_tokens // 2,
        "slots": room + widths[-1],
    }
    return [(role, width) for role in ROLES for width in widths], shapes


def _say_tables(
    known: Iterator[tuple],
    ready: Mapping[Case, list[decoding.Decoding]],
    repeats: int,
    step_tokens: tuple[int, ...],
    num_batches: int,
    progress: Progress,
) -> int:
    """Says each table's lines as soon as they are known; returns the number of trials."""
    times: dict[tuple[str, int], float] = {}
    of_case: list[clock.Measured] = []
    base = None
    for (what, i), measured in known:
        if not isinstance(what, Case):
            times[what, i] = measured.seconds / repeats
            continue
        if base is None and not of_case:
            progress.say("ms per pass over a number of tokens in each row\n")
            shown = {key: value for key, value in times.items() if key[1] in step_tokens}
            progress.say(f"{table.steps(shown)}\n\ndecoding\n\n{table.speed_head()}")
        of_case.append(measured)
        if len(of_case) < num_batches:
            continue
        found = decoding.speed(
            ready[what], of_case, lambda role, width: times[role, width]
        )
        base = base or found.tokens_per_second
        progress.say(table.speed_row(what, found, base))
        of_case = []
    return len(measured.times)


def _trace(
    subject: Subject, cases: list[Case], batches: Mapping[int, int], directory: str
) -> None:
    calls = {
        (batch, c): decoding.prepare(subject, c, batch, 1)[0].timed(subject.max_new_tokens)
        for batch in batches
        for c in cases
    }
    for call in calls.values():
        jax.block_until_ready(call.warm())
    with jax.profiler.trace(directory):
        for (batch, c), call in calls.items():
            state = jax.block_until_ready(call.prepare())
            with jax.profiler.TraceAnnotation(f"batch {batch} {c.setting}"):
                jax.block_until_ready(call.run(state))
