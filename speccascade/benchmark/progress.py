"""How far a run is and how long it will take, beside what it has found."""

import time
from collections.abc import Callable

import tqdm


class Progress:
    """A bar of the whole run, its unit the second."""

    def __init__(self, say: Callable[[str], None], parts: int):
        """Makes the bar.

        Args:
          say: takes the lines that are found.
          parts: how many parts the run has; the next are taken to be as long as the present one.
        """
        self._say, self._began = say, time.monotonic()
        self._parts, self._part_began = parts + 1, self._began
        # Elapsed seconds of expected ones: tqdm's own rate is then one, its remainder ours.
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
        self._bar = tqdm.tqdm(total=0, bar_format=form, smoothing=0, desc="loading")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception) -> None:
        self._bar.close()

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def begin_part(self) -> None:
        """Tells that the next part begins, the first one included."""
        self._parts, self._part_began = self._parts - 1, time.monotonic()

    def show(self, left: float, doing: str) -> None:
        """Tells how many seconds the present part will still take, and what is done next."""
        part = time.monotonic() - self._part_began + left
        self._bar.n = self.elapsed
        self._bar.total = self._bar.n + left + (self._parts - 1) * part
        self._bar.set_description_str(doing)

    def say(self, text: str) -> None:
        """Hands a line on, the bar out of its way."""
        with tqdm.tqdm.external_write_mode():
            self._say(text)
