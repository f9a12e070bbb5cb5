"""Methods x knobs x draft lengths x temperatures: how good, and how fast beside the expert."""
