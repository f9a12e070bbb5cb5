"""Architectures of Hugging Face checkpoints, by the name that config.json gives."""

from collections.abc import Callable

from speccascade.importing.architectures import decoder_only, gemma3_vision, t5
from speccascade.importing.architectures.gemma3_vision import text_config
from speccascade.importing.weights import Fields, Plan

ARCHITECTURES: dict[str, Callable[[Fields], Plan]] = {
    **decoder_only.ARCHITECTURES,
    **gemma3_vision.ARCHITECTURES,
    **t5.ARCHITECTURES,
}

__all__ = ["ARCHITECTURES", "text_config"]
