"""Speculative cascades in JAX: deferral rules, one lossless verifier, and what they are worth."""

__all__ = ["Completion", "generate_text", "load_pair"]


def __getattr__(name: str):
    # Lazily: a script that only prints its help should not wait for JAX.
    if name in __all__:
        from speccascade.inference import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
