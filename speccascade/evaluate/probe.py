"""A short run of what a sweep is about to do, for `cost`."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax

from speccascade.evaluate import cost, quality
from speccascade.evaluate.cost import Speed
from speccascade.evaluate.jobs import QUALITY, Job
from speccascade.evaluate.quality import Prompts
from speccascade.inference import stream
from speccascade.inference.engine import Engine, Request, rule_kind
from speccascade.inference.methods import named
from speccascade.inference.setting import Setting
from speccascade.sharding import hosts

# Tokens that are decoded of each answer, and seconds that whole answers may take instead.
TOKENS = 16
WHOLE_S = 2.0


def measure(
    engine: Engine,
    prompts: Mapping[str, Prompts],
    jobs: Sequence[Job],
    batch_size: int,
    known: Mapping[tuple[str, str], float],
) -> dict[tuple[str, str], Speed]:
    """Returns the speeds that `cost` needs for `jobs`.

    Each is that of one program of the sweep, on the first prompts, compiled here and so not again
    later in this process. Where whole answers would take long, a few tokens of each are decoded and
    the rest is taken to be as fast, and as long as it may become if none of it ended in them.

    Args:
      engine: the pair.
      prompts: by split.
      jobs: what is left of the sweep.
      batch_size: rows of a quality batch.
      known: `batch_s` of what has been measured; its programs count as compiled.
    """
    speeds = {}
    requests = next(iter(prompts.values())).requests
    for kind, method in cost.needed(jobs):
        if (kind, method) in known:
            speeds[kind, method] = Speed(known[kind, method], 0.0)
            continue
        rows = batch_size if kind == QUALITY else 1
        settings = _settings([job for job in jobs if job.kind == kind], method)
        kinds = list({rule_kind(setting): setting for setting in settings}.values())
        if kind != QUALITY:
            settings = kinds = kinds[:1]
        run = stream.answers if kind == QUALITY else stream.in_batches
        speeds[kind, method] = _speed(
            run, engine, _cycled(settings, rows), _cycled(requests, rows), kinds
        )
    return speeds


def _settings(jobs: Iterable[Job], method: str) -> list[Setting]:
    """Returns the settings of the largest quality group of a method, or one that is like it."""
    own = [job for job in jobs if job.setting.method.name == method]
    if not own:
        return [Setting(named(method))]
    return [job.setting for job in max(quality.groups(own), key=cost.answers)]


def _cycled(items: Sequence[Any], count: int) -> list[Any]:
    return [items[i % len(items)] for i in range(count)]


@contextlib.contextmanager
def _saved() -> Iterator[list[float]]:
    """Yields a list that gets the seconds by which the compilation cache shortens compiling."""
    found: list[float] = []

    def listen(event: str, duration_secs: float, **_) -> None:
        if event == "/jax/compilation_cache/compile_time_saved_sec":
            found.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def _speed(
    run: Callable,
    engine: Engine,
    settings: Sequence[Setting],
    requests: Sequence[Request],
    kinds: Sequence[Setting],
) -> Speed:
    """Returns the speed at which `run` of `inference.stream` answers `requests`, all at a time."""

    def decode(limit: int) -> tuple[float, int, bool]:
        """Returns seconds, the longest answer's tokens, and whether all of them ended."""
        cut = [r._replace(max_new_tokens=min(limit, r.max_new_tokens)) for r in requests]
        began = time.perf_counter()
        longest = max(
            int(answer.output.num_tokens)
            for part in run(engine, settings, cut, kinds, len(cut))
            for answer in part
        )
        seconds = time.perf_counter() - began
        return seconds, longest, longest < limit

    with _saved() as saved:
        first, _, _ = decode(1)
    one, _, _ = decode(1)
    compile_s = max(first - one, 0.0) + sum(saved)
    room = engine.max_new_tokens
    some, tokens, ended = decode(min(TOKENS, room))
    token_s = max(some - one, 0.0) / max(tokens - 1, 1)
    whole = some if ended else one + token_s * (room - 1)
    # One process decides for all: they decode together.
    if not ended and hosts.from_first(lambda: whole < WHOLE_S):
        whole, _, _ = decode(room)
    return Speed(whole, compile_s)
