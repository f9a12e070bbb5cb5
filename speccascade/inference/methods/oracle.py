"""The oracle, which knows the reference answer: measured on references, never decoded."""

from speccascade.inference.setting import Method


class Oracle(Method):
    """Defers the positions where the expert's probability of the reference exceeds most."""

    name = "oracle"
    measured = False


ORACLE = Oracle()
