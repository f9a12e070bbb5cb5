"""Few lengths for texts of any length: what was compiled for one serves others."""


def padded(length: int, step: int, steps: int) -> int:
    """Returns the length to which one of `length` is padded.

    The lengths are the multiples of `step` up to `steps` of them, and beyond that `steps` / 2 to
    every doubling.

    Args:
      length: at least 1.
      step: the shortest there is.
      steps: even; at most 1 in steps / 2 + 1 of a long text is padding.
    """
    while length > steps * step:
        step *= 2
    return -(-length // step) * step
