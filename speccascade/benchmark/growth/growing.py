"""The whole of it: what is missing in the workdir is measured, size by size, then all is shown."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_collections

from speccascade.benchmark import clock
from speccascade.benchmark.growth import batches, page, sets, start
from speccascade.benchmark.growth.series import Growth
from speccascade.benchmark.progress import Progress
from speccascade.errors import UserError
from speccascade.inputs import values
from speccascade.workdir import claim, provenance, results

GROWTHS: dict[str, Growth] = {
    "prompt": batches.PROMPT,
    "cache": batches.SLOTS_OF_CACHE,
    "vocabulary": batches.VOCABULARY,
    "batch": batches.BATCH,
    "slots": sets.SLOTS,
    "settings": sets.SETTINGS,
    "start": start.LAYERS,
}
_WHOLES = (
    "prompt_length",
    "new_tokens",
    "draft_length",
    "window",
    "num_prompts",
    "sweep_prompts",
    "sweep_slots",
    "trials",
)
_EXAMPLE = "configs/growth.py"


def run(config: ml_collections.ConfigDict, workdir: str, say: Callable[[str], None]) -> None:
    """Measures what the workdir lacks and says each growth's table as soon as it is known.

    Into the workdir go `results.jsonl`, a row for each size; `growth.csv`; and `growth_NAME.png`.
    Sizes may change between runs, nothing else.

    Args:
      config: `growth`; see configs/growth.py.
      workdir: a directory; made where there is none.
      say: told each part of the Markdown.

    Raises:
      UserError: the config is not as it must be, or the workdir is another config's.
    """
    section = _read(config)
    sizes = section.pop("sizes")
    with claim.claim(workdir) as check:
        claim.claim_workdir(workdir, {"growth": {**section, "sizes": sizes}}, ["growth.sizes"])
        kept = results.Results(workdir, check)
        wanted = [(name, size) for name, own in sizes.items() for size in own]
        machine = f"{provenance.machine()}; {provenance.library()}"
        missing = [
            at for at in wanted if kept.rows.get(_key(*at), {}).get("machine") != machine
        ]
        say(f"{machine}, {section['expert'].get('dtype', 'float32')}\n")
        with Progress(say, len(missing)) as progress:
            for name, own in sizes.items():
                for size in own:
                    if (name, size) in missing:
                        progress.begin_part()
                        measured = dict(_measure(GROWTHS[name], section, size, progress))
                        row = {"name": name, "size": size, "machine": machine, "series": measured}
                        kept.append({"key": _key(name, size), **row})
                rows = [kept.rows[_key(name, size)] for size in own]
                progress.say(page.shown(name, GROWTHS[name], rows))
        found = {name: [kept.rows[_key(name, size)] for size in own] for name, own in sizes.items()}
        page.write(workdir, GROWTHS, found)
        say(f"Written: growth.csv and growth_*.png in {workdir}")


def _key(name: str, size: int) -> str:
    return f"{name} {size}"


def _read(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the section with its sizes, checked."""
    values.section("", config, ["growth"], _EXAMPLE)
    needed = (*_WHOLES, "expert", "drafter", "agreement", "sweeps", "sizes")
    section = dict(values.section("growth", config.growth.to_dict(), needed, _EXAMPLE))
    for name in _WHOLES:
        values.whole(f"growth.{name}", section[name], 1)
    sizes = dict(values.section("growth.sizes", section["sizes"]))
    for name in sizes:
        values.choice("growth.sizes", name, GROWTHS)
        sizes[name] = sorted(set(values.wholes(f"growth.sizes.{name}", sizes[name], 1)))
    sweeps = values.section("growth.sweeps", section["sweeps"])
    for name, entries in sweeps.items():
        if len(entries) < max(sizes.get("settings", [0])):
            raise UserError(
                f"growth.sweeps has {len(entries)} {name} and growth.sizes.settings asks for "
                f"{max(sizes['settings'])}"
            )
    return section | {"sizes": {name: sizes[name] for name in GROWTHS if name in sizes}}


def _measure(
    growth: Growth, section: Mapping[str, Any], size: int, progress: Progress
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields names and figures of the series at a size."""
    progress.show(0.0, f"compiling {growth.grows} {size}")
    series = growth.at(section, size)
    calls = {name: own.timed for name, own in series.items()}
    clock.warm(calls, progress)
    for name, found in clock.measure(calls, section["trials"], lambda name: 0.0, progress):
        yield name, {
            "value": series[name].value(found),
            "bytes": series[name].memory(found),
            "seconds": [round(seconds, 6) for seconds in found.times],
        }
