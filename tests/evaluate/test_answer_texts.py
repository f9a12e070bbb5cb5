"""Answers' texts, stop strings and traces of pairs whose tokenizer puts a space before a text."""

import pytest

from speccascade import generate_text, models, pairs, text
from speccascade.inference.engine import Engine
from speccascade.inference.reading import setting
from speccascade.trace import trace_prompt
from tests import random_params
from tests.text import makers

SIZES = {"d_model": 8, "num_layers": 1, "num_heads": 2, "head_dim": 4, "d_ff": 16}
FAMILIES = {
    "decoder_only": {**SIZES, "num_kv_heads": 1, "tie_embeddings": False},
    "encoder_decoder": {**SIZES, "num_decoder_layers": 1},
}
HOW = {"rule": "spec", "draft_length": 2, "temperature": 1.0}
ROOM = 12


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory) -> pairs.Pair:
    tokenizer = text.load(makers.llama2(tmp_path_factory.mktemp("tokenizer")))
    description = {"family": request.param, **FAMILIES[request.param]}
    built, params = {}, {}
    for i, role in enumerate(pairs.ROLES):
        built[role] = models.build({**description, "vocab_size": tokenizer.vocab_size})
        params[role] = random_params.of(built[role], seed=i)
    return pairs.Pair(request.param, built, params=params, tokenizer=tokenizer, context_length=99)


def begins(pair, prompt: str) -> bool:
    """Returns whether an answer begins a text: behind an encoder, or where there is no prompt."""
    return pair.name == "encoder_decoder" or not prompt


# Their tables are of one size: one program.
@pytest.mark.parametrize("stops", [(" ", "zq"), (" a", "e")], ids=repr)
def test_texts_and_stop_strings(pair, stops):
    prompts = ["def f(x):\n", "", "Ann has", "é"] * 8
    found = generate_text(pair, prompts, max_new_tokens=ROOM, stop_strings=stops, **HOW)
    spaces = stopped = unstopped = 0
    for prompt, completion in zip(prompts, found, strict=True):
        pieces = [pair.tokenizer.data([i]) for i in completion.tokens]
        data = b"".join(pieces)
        spaces += data.startswith(b" ")
        if begins(pair, prompt):
            data = data.removeprefix(b" ")
        own = data.decode(errors="replace")
        at = [own.find(stop) for stop in stops if stop in own]
        assert completion.text == own[: min(at, default=None)]
        is_end = completion.tokens[-1] in pair.tokenizer.eos_ids
        assert len(completion.tokens) == ROOM or is_end or at
        unstopped += not at
        if at:  # and it stopped with the token that completed it
            stopped += 1
            shorter = data[: max(len(data) - len(pieces[-1]), 0)].decode(errors="replace")
            assert not any(stop in shorter for stop in stops)
    assert spaces and stopped and unstopped


def test_a_trace_shows_the_same_text(pair):
    for prompt in ("def f(x):\n", ""):
        for seed in range(6):
            how = setting({**HOW, "seed": seed})
            [trace] = trace_prompt(pair, prompt, [how], max_new_tokens=ROOM).traces
            assert "".join(token.text for token in trace.tokens) == trace.text
            data = b"".join(token.data for token in trace.tokens)
            assert data.decode(errors="replace") == trace.text
            assert trace.text == pair.tokenizer.decode(
                [token.id for token in trace.tokens], begins(pair, prompt)
            )


def test_references_are_encoded_as_the_models_would_write_them(pair):
    answers = ["    return x\n", "19"]
    ids = pair.encode_answers(answers)
    assert [pair.tokenizer.decode(i, begins(pair, "x")) for i in ids] == answers
    engine = Engine.build(pair, [[5]], 4)
    assert [engine.text(i) for i in ids] == answers
    assert engine.begins(pair.encode_prompts(["a"])[0]) == begins(pair, "a")
