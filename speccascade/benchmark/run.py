"""The whole benchmark of one pair, as Markdown."""

from collections.abc import Callable, Sequence

import jax
import ml_collections
import tqdm

from speccascade.benchmark import clock, decoding, steps, table
from speccascade.benchmark.subject import ROLES, Case, Subject, case, load
from speccascade.errors import UserError
from speccascade.inference.methods import DRAFTER, EXPERT
from speccascade.inference.reading import entries_of
from speccascade.inference.setting import Setting
from speccascade.inputs import paths, values
from speccascade.workdir import provenance

_NUMBERS = ("num_examples", "max_new_tokens", "step_repeats", "trials")
_LISTS = ("batch_sizes", "step_tokens")
_EXAMPLE = "configs/synthetic.py"


def run(config: ml_collections.ConfigDict, say: Callable[[str], None], profile: str = "") -> None:
    """Benchmarks a pair and says the tables, batch size by batch size.

    Args:
      config: `benchmark`, and `synthetic` or `pair` and `task`; see configs/synthetic.py.
      say: told each part of the Markdown as soon as it is there.
      profile: directory for a trace of one warm generation per method; empty for none.

    Raises:
      UserError: the config is not as it must be.
    """
    profile = paths.on_disk(profile, "a profile") if profile else ""
    cases = _cases(config)
    lists = {k: values.wholes(f"benchmark.{k}", config.benchmark[k], 1) for k in _LISTS}
    section = ml_collections.ConfigDict({**config.benchmark.to_dict(), **lists})
    prompts = {batch: -(-section.num_examples // batch) * batch for batch in section.batch_sizes}
    subject = load(config, max(prompts.values()))
    ready = {
        batch: {c: decoding.prepare(subject, c, batch, prompts[batch]) for c in cases}
        for batch in section.batch_sizes
    }
    say(_header(subject, section))
    for batch, found in ready.items():
        _run_batch(subject, found, batch, section, say)
    if profile:
        _trace(ready, profile)
        say(f"Trace: {profile}")


def _cases(config: ml_collections.ConfigDict) -> list[Case]:
    """Returns the cases, both models' own decoding first; raises UserError for a bad config."""
    values.section("", config, ["benchmark"], _EXAMPLE)
    needed = (*_NUMBERS, *_LISTS, "settings")
    section = values.section("benchmark", config.benchmark, needed, _EXAMPLE)
    for name in _NUMBERS:
        values.whole(f"benchmark.{name}", section[name], 1)
    entries = entries_of("benchmark.settings", section["settings"])
    cases = [case(entry, "synthetic" in config) for entry in entries]
    temperatures = {c.setting.temperature for c in cases}
    if len(temperatures) != 1:
        raise UserError(
            "benchmark.settings must be of one temperature, that of the expert's decoding"
        )
    (temperature,) = temperatures
    alone = [Setting(method, temperature=temperature) for method in (EXPERT, DRAFTER)]
    return [*(Case(setting, None) for setting in alone), *cases]


def _header(subject: Subject, section: ml_collections.ConfigDict) -> str:
    sizes = ", ".join(f"{role} {subject.size(role) / 1e6:.3g}M" for role in ROLES)
    cut = sum(request.cut > 0 for request in subject.requests)
    shortened = f", {cut} of {len(subject.requests)} of them cut to the pair's lengths"
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(subject.params) if leaf.ndim > 1}
    return "\n".join(
        [
            f"### {subject.name}: {sizes} parameters, {', '.join(sorted(dtypes))}\n",
            f"- {provenance.machine()}; jax {jax.__version__}",
            f"- prompts of at most {subject.prompt_slots} tokens{shortened if cut else ''}, "
            "answers of at most "
            f"{subject.max_new_tokens}; times without the prompt; medians of {section.trials} "
            "interleaved trials\n",
        ]
    )


def _run_batch(
    subject: Subject,
    found: dict[Case, list[decoding.Decoding]],
    batch: int,
    section: ml_collections.ConfigDict,
    say: Callable[[str], None],
) -> None:
    """Measures and says the tables of one batch size."""
    lengths = {c.setting.draft_length or 0 for c in found}
    widths = sorted({1, 2, *section.step_tokens, *(n + 1 for n in lengths)})
    slots = subject.prompt_slots + subject.max_new_tokens + max(max(lengths) + 1, widths[-1])
    middle = subject.prompt_slots + subject.max_new_tokens // 2
    calls = {
        (role, width): steps.step(
            subject.models[role],
            subject.params[role],
            batch=batch,
            tokens=width,
            position=middle,
            slots=slots,
            repeats=section.step_repeats,
        )
        for role in ROLES
        for width in widths
    }
    calls |= {(c, i): d.timed for c, ready in found.items() for i, d in enumerate(ready)}
    with tqdm.tqdm(total=len(calls) * (1 + section.trials), desc=f"batch {batch}") as bar:
        measured = clock.measure(calls, section.trials, bar.update)

    def step_time(role: str, width: int) -> float:
        return measured[role, width].seconds / section.step_repeats

    speeds = {
        c: decoding.speed(ready, [measured[c, i] for i in range(len(ready))], step_time)
        for c, ready in found.items()
    }
    times = {
        (role, width): step_time(role, width) for role in ROLES for width in section.step_tokens
    }
    say(f"Batch {batch}: ms per pass over a number of tokens in each row\n")
    say(table.steps(times) + "\n")
    say(f"Batch {batch}: decoding\n")
    say(table.speeds(speeds) + "\n")


def _trace(ready: dict[int, dict[Case, Sequence[decoding.Decoding]]], directory: str) -> None:
    with jax.profiler.trace(directory):
        for batch, found in ready.items():
            for c, decodings in found.items():
                state = jax.block_until_ready(decodings[0].timed.prepare())
                with jax.profiler.TraceAnnotation(f"batch {batch} {c.setting}"):
                    jax.block_until_ready(decodings[0].timed.run(state))
