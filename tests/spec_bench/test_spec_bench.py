"""Answers of a tiny pair in Spec-Bench's form, and its arithmetic over them."""

import dataclasses
import json
import runpy

import ml_collections
import numpy as np
import pytest
import tokenizers

from speccascade import pairs
from speccascade.errors import UserError
from speccascade.inference.engine import Engine
from speccascade.inference.reading import expand, setting
from speccascade.spec_bench import answering, conversation, questions
from speccascade.text import load as load_tokenizer
from tests import chat_pair
from tests.spec_bench.test_bench_questions import QA, SPEED, WRITING, write
from tests.text import makers

ROOM = 7
SPEC = {"rule": "spec", "draft_length": 2}
# So long a first turn that the second takes the same room: what is compiled is shared.
LONG = "Ann has 12 pens and buys 7 pens. " * 19
MATH = {"question_id": 82, "category": "math", "turns": [LONG + "12 + 7 + 12?", "Why is it?"]}
QUESTIONS = [
    {**WRITING, "turns": [LONG + "Compose.", "Rewrite."]},
    MATH,
    {**QA, "turns": [LONG + "Who?"]},
    {"question_id": 300, "category": "translation", "turns": [LONG + "Ein Haus."]},
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A pair whose drafter is the expert itself: every draft is kept."""
    folder = tmp_path_factory.mktemp("pair")
    pair = chat_pair.make(folder / "tokenizer")
    both = (dict.fromkeys(pair.roles, own["expert"]) for own in (pair.models, pair.params))
    models, params = both
    pairs.export(dataclasses.replace(pair, models=models, params=params), folder / "pair", {})
    return folder / "pair"


def config(exported, tmp_path, *settings, rows=QUESTIONS, **fields):
    section = {"settings": settings or (SPEC,), "max_new_tokens": ROOM, **fields}
    section["questions"] = str(write(tmp_path / "question.jsonl", *rows))
    return ml_collections.ConfigDict({"pair": str(exported), "spec_bench": section})


def read(path):
    return [json.loads(line) for line in open(path)]


@pytest.fixture(scope="module")
def answered(exported, tmp_path_factory):
    """A workdir with all answers, its files' paths by setting, and the tables."""
    folder = tmp_path_factory.mktemp("bench")
    text, paths = answering.run(config(exported, folder), str(folder / "w"))
    return folder, paths, text


def test_answers_have_spec_benchs_form(answered):
    _, (base, spec, *_), _ = answered
    assert base.endswith("model_answer/tiny-chat-autoregressive_expert-T=0.jsonl")
    assert spec.endswith("model_answer/tiny-chat-spec-N=2-token-T=0.jsonl")
    for path in (base, spec):
        rows = read(path)
        assert [row["question_id"] for row in rows] == [81, 82, 240, 300]
        assert len({row["answer_id"] for row in rows}) == 4
        for row, question in zip(rows, QUESTIONS, strict=True):
            assert list(row) == [
                *("question_id", "category", "answer_id", "model_id", "choices", "tstamp")
            ]
            assert path.endswith(f"/{row['model_id']}.jsonl")
            (choice,) = row["choices"]
            turns = len(question["turns"])
            assert choice["index"] == 0 and len(choice["turns"]) == turns
            for name in ("decoding_steps", "new_tokens", "wall_time"):
                assert len(choice[name]) == turns and min(choice[name]) > 0
            # Every step's tokens, of all turns together.
            assert sum(choice["accept_lengths"]) == sum(choice["new_tokens"])
            assert len(choice["accept_lengths"]) == sum(choice["decoding_steps"])
            whole = [1] * ROOM if path == base else [3, 3, 1]  # in order
            if choice["new_tokens"] == [ROOM] * turns:
                assert choice["accept_lengths"] == whole * turns
            assert all(text == text.strip() for text in choice["turns"])
    assert sum(len(row["choices"][0]["accept_lengths"]) for row in read(spec)) < 6 * ROOM / 2


def test_a_second_turn_is_asked_behind_the_first_answer(answered, exported):
    _, (base, spec, *_), _ = answered
    pair = pairs.load(str(exported))
    first, second = read(base)[1]["choices"][0]["turns"]
    messages = [
        {"role": "user", "content": MATH["turns"][0]},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Why is it?"},
    ]
    ids = pair.tokenizer.encode_chat(messages)
    engine = Engine.build(pair, [[0] * conversation.room(len(ids))], ROOM)
    expert = setting({"method": "autoregressive_expert"})
    output = engine.prepare([expert], [engine.request(ids, 0, "it")], [expert])()
    tokens = output.tokens[0, : output.num_tokens[0]].tolist()
    assert pair.tokenizer.decode(tokens).strip() == second
    # Greedy and lossless: the same answers, in fewer steps.
    turns = [[row["choices"][0]["turns"] for row in read(path)] for path in (base, spec)]
    assert turns[0] == turns[1]


def by_definition(rows, others, count):
    """Spec-Bench's arithmetic, from its definition: accepted tokens, both speeds, their ratio."""
    lengths, speeds, others_speeds = [], [], []
    for row in rows:
        choice = row["choices"][0]
        lengths += choice["accept_lengths"]
        speeds.append(sum(choice["new_tokens"]) / sum(choice["wall_time"]))
    for row in others:
        choice = row["choices"][0]
        tokens = sum(count(text) - 1 for text in choice["turns"])
        others_speeds.append(tokens / sum(choice["wall_time"]))
    own, other = np.mean(speeds), np.mean(others_speeds)
    return np.mean(lengths), own, other, own / other


def test_tables_are_spec_benchs_arithmetic(answered, exported):
    folder, (base, spec, *_), text = answered
    inner = tokenizers.Tokenizer.from_file(str(exported / "tokenizer.json"))
    rows, others = read(spec), read(base)

    def count(words):
        return len(inner.encode(words).ids)

    records = [
        line.split(",") for line in (folder / "w/spec_bench.csv").read_text().splitlines()
    ]
    found = {(r[0], r[1]): dict(zip(records[0], r, strict=True)) for r in records[1:]}
    tasks = {"mt_bench": [0, 1], "qa": [2], "translation": [3], "overall": [0, 1, 2, 3]}
    for task, places in tasks.items():
        own = found["spec N=2 token T=0", task]
        wanted = by_definition([rows[i] for i in places], [others[i] for i in places], count)
        names = ("accepted", "tokens_per_second", "baseline", "speedup")
        assert [float(own[name]) for name in names] == pytest.approx(list(wanted))
        assert (own["questions"], own["same"]) == (str(len(places)), "1.0")
    assert "| setting | mt_bench | qa | translation | overall |" in text
    assert (folder / "w/spec_bench.md").read_text() == text


def test_started_again_only_what_is_missing_is_answered(answered, exported, tmp_path):
    workdir = str(tmp_path / "w")
    _, (base, spec, *_) = answering.run(config(exported, tmp_path, most_of_each=1), workdir)
    whole = {path: read(path) for path in (base, spec)}
    text = open(spec).read()
    open(spec, "w").write(text[: text.rindex("tstamp") - 30])  # a kill cut the last line short
    both = SPEC, {**SPEC, "temperature": 1.0}
    _, paths = answering.run(config(exported, tmp_path, *both), workdir)
    again = read(spec)
    assert again[:-1] == whole[spec][:-1] and read(base) == whole[base]
    assert again[-1]["choices"][0]["turns"] == whole[spec][-1]["choices"][0]["turns"]
    assert [len(read(path)) for path in paths[:4]] == [4] * 4  # settings that were added
    other = config(exported, tmp_path, rows=QUESTIONS[:3])
    with pytest.raises(UserError, match="was made from another config: content.questions"):
        answering.run(other, workdir)


def test_speed_benchs_questions_by_their_categories(exported, tmp_path):
    said = {**SPEED, "turns": [LONG]}
    _, paths = answering.run(config(exported, tmp_path, rows=[said]), str(tmp_path / "w"))
    assert read(paths[0])[0]["question_id"] == "a1"
    assert "| setting | multilingual | overall |" in (tmp_path / "w/spec_bench.md").read_text()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"questions": "/nowhere.jsonl"}, "/nowhere.jsonl is missing"),
        ({"questions": ""}, "spec_bench.questions is missing; give Spec-Bench's question.jsonl"),
        ({"max_new_tokens": 0}, "spec_bench.max_new_tokens=0 must be at least 1"),
        ({"most_of_each": 0}, "spec_bench.most_of_each=0 must be at least 1"),
        ({"rows": 3}, "spec_bench has unknown fields rows; see configs/spec_bench.py"),
        ({"settings": ({"rule": "nonsense"},)}, "rule 'nonsense' is unknown"),
    ],
)
def test_bad_configs(exported, tmp_path, fields, message):
    given = config(exported, tmp_path)
    given.spec_bench.update(fields)
    with pytest.raises(UserError, match=message):
        answering.run(given, str(tmp_path / "w"))
    assert not (tmp_path / "w").exists()


def test_few_rooms_serve_prompts_of_any_length():
    rooms = [conversation.room(n) for n in range(1, 2049)]
    assert len(set(rooms)) == 10 and max(rooms) == 2048
    assert all(n <= room <= max(1.5 * n, n + 64) for n, room in enumerate(rooms, 1))


def test_pairs_that_cannot_converse(exported, tmp_path):
    asked = questions.read(write(tmp_path / "question.jsonl", WRITING))
    pair = pairs.load(str(exported))
    plain = load_tokenizer(makers.byte_level(tmp_path / "plain", chat_template=None))
    with pytest.raises(UserError, match="pair tiny chat has no chat template, and the questions"):
        conversation.check(dataclasses.replace(pair, tokenizer=plain), asked, ROOM)
    short = dataclasses.replace(pair, context_length=60)
    conversation.check(short, asked, ROOM)
    with pytest.raises(
        UserError, match="question 81: turn 2 has .* together, answers before it included; lower"
    ):
        conversation.check(short, asked, 40)
    with pytest.raises(UserError, match="question 81: turn 1 has .* together; leave the question"):
        conversation.check(dataclasses.replace(pair, context_length=9), asked, 1)


def test_the_config_takes_one_pair_or_two_models():
    made = runpy.run_path("configs/spec_bench.py")["get_config"]
    assert made().pair == "shipped:smollm2"
    assert made("a,b").pair.to_dict() == {
        **{"drafter": "a", "expert": "b"},
        **{"dtype": "bfloat16", "chat": True},
    }
    section = made().spec_bench
    assert len(expand(section.settings)) == 4 and section.max_new_tokens == 1024
    with pytest.raises(UserError, match="spec_bench.questions is missing"):
        answering.prepare(made())
