"""What differs between two runs of the same training: how fast they were."""

TIMES = ("seconds_per_step", "tokens_per_second", "share_of_peak")


def without(rows):
    """Returns rows of metrics without their times."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
