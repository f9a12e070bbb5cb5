"""Blocks are drafted, scored in one pass and kept by an acceptance kernel: engines' lossy modes."""

from speccascade import kernels
from speccascade.inference.methods.speculative import Speculative
from speccascade.inference.setting import Method


class Kernel(Speculative):
    """A row of `kernels.KERNELS`, by blocks; its rule has no target, so nothing is scored by it."""

    name = "kernel"
    has_rule = False
    rows = kernels.KERNELS

    def verifier(self, given):
        """There is one, which no field chooses."""
        return kernels.VERIFIER, set()

    def trouble(self, setting, pair):
        """Returns which token id the pair has not, or what the drafting lacks."""
        known, size = kernels.KERNELS[setting.rule].knobs, pair.tokenizer.vocab_size
        for name, value in setting.knobs:
            if known[name].is_token and value >= size:
                return f"names no token of pair {pair.name}, which has {size}; change {name}"
        return super().trouble(setting, pair)

    def law(self, setting):
        """Blocks of another length, or drafted by another, are of another law."""
        return Method.law(self, setting)


KERNEL = Kernel()
