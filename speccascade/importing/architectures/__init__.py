"""Architectures of Hugging Face checkpoints, by the name that config.json gives."""

from collections.abc import Callable

from speccascade.importing.architectures import decoder_only, t5
from speccascade.importing.weights import Fields, Plan

ARCHITECTURES: dict[str, Callable[[Fields], Plan]] = {
    **decoder_only.ARCHITECTURES,
    **t5.ARCHITECTURES,
}
