"""Tokens that end an answer by how they are written, as in llama.cpp.

A GGUF file names one end of a sequence, often another one of a turn, and may give either any type;
a SentencePiece model alone names one.
llama.cpp ends an answer at each of these all the same (its src/llama-vocab.cpp, "tokens that cause
end-of-generation"); so does this package, but for tokens that only fill in code.
"""

from collections.abc import Sequence

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"

_ENDS = frozenset(
    (
        "<|eot_id|>",
        "<|eom_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|calls|>",
        "<|flush|>",
        "<end_of_turn>",
        "<end_of_utterance>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|tool_response>",
        "<turn|>",
        "<eos>",
        "</s>",
        f"<｜end{_SPACE}of{_SPACE}sentence｜>",  # DeepSeek's
        "<EOT>",
        "_<EOT>",
        _SPACE + "<EOT>",  # CodeLlama's
        "[EOT]",
        "[EOS]",
    )
)
# Where all of the first are tokens, too, the second is none that ends an answer.
_UNLESS = (
    ({"<|return|>", "<|call|>"}, "<|end|>"),  # it ends a part of one
    ({"<|return|>", "<|calls|>"}, "<|end|>"),
    ({"<|flush|>", "<|call|>"}, "<|end|>"),
    ({"<|flush|>", "<|calls|>"}, "<|end|>"),
    ({"<eos>"}, "</s>"),  # Gemma's, of HTML
)


def find(tokens: Sequence[str]) -> list[int]:
    """Returns the ids of tokens that end an answer; a space may be written as SentencePiece's."""
    found = {}
    for index, token in enumerate(tokens):
        if (name := token.replace(" ", _SPACE)) in _ENDS:
            found[name] = index
    for others, name in _UNLESS:
        if others <= found.keys():
            found.pop(name, None)
    return list(found.values())
