"""What a model thinks aloud before its answer, which is none of it."""

_BEGIN, _END = "<think>", "</think>"


def answer(text: str) -> str:
    """Returns a text without the thoughts that it begins with.

    A chat template may have begun them already, so that their end alone is in the text. Thoughts
    that do not end have no answer behind them.
    """
    _, end, behind = text.rpartition(_END)
    if end:
        return behind.lstrip("\r\n")
    return "" if text.lstrip().startswith(_BEGIN) else text
