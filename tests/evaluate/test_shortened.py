"""Rows count the prompts and answers that were shortened, and answers that were timed otherwise."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from speccascade import models, pairs
from speccascade.evaluate import evaluation, forecast, prepared
from speccascade.evaluate.jobs import QUALITY, TEACHER_FORCED, TIMING
from speccascade.inference.reading import setting
from speccascade.report import report
from speccascade.workdir import answers, parameter_files, results
from tests import tiny_pair

COUNT, ROOM, CONTEXT = 6, 6, 120
COMPARED = 12
# Words of the articles: some prompts fit with the answer's room, some do not.
WORDS = (2, 60, 5, 200, 400, 3)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A sweep over articles that are too long for the pair, and over one answer that is."""
    folder = tmp_path_factory.mktemp("shortened")
    pair = dataclasses.replace(tiny_pair.make(), context_length=CONTEXT)
    pairs.export(pair, folder / "pair", {})
    for split in ("train", "validation", "test"):
        rows = [
            {
                "document": f"{split} {i}: " + "pens are many " * (words // 3),
                "summary": "Pens. " * (1 if i else 80),
            }
            for i, words in enumerate(WORDS)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    found = tiny_pair.get_config(str(folder / "pair"))
    found.task = {"name": "xsum", "path": str(folder), "shots": 0}
    found.evaluate.splits = {"validation": COUNT, "test": COUNT}
    found.evaluate.max_new_tokens = ROOM
    found.evaluate.timing.num_examples = 0
    found.evaluate.settings = (
        {"method": "autoregressive_expert"},
        {"rule": "spec", "draft_length": 2},
    )
    return found


def test_what_is_shortened_is_counted_and_said(config, tmp_path):
    sweep = prepared.prepare(config)
    pair, task = sweep.engine.pair, sweep.task
    whole = pair.encode_prompts([e.prompt for e in task.examples("test")])
    too_long = [len(ids) > CONTEXT - ROOM for ids in whole]
    assert any(too_long) and not all(too_long)
    for request, ids, long in zip(sweep.prompts["test"].requests, whole, too_long, strict=True):
        assert (request.prompt == ids) == (not long) and request.max_new_tokens == ROOM
        assert request.cut == len(ids) - len(request.prompt)
        text = pair.tokenizer.decode(request.prompt)
        assert text.startswith("Article: test ") and text.endswith("\nSummary:")
    described = forecast.describe(sweep, str(tmp_path / "w"))
    assert f"{sum(too_long)} of {COUNT} of test" in described
    assert evaluation.evaluate(config, str(tmp_path / "w")).failed == []

    references = [pair.tokenizer.encode(e.answer) for e in task.examples("test")]
    for row in results.read(tmp_path / "w"):
        if row["split"] != "test":
            continue
        assert row["prompts_cut"] == sum(too_long)
        if row["kind"] == QUALITY:
            kept = [a["tokens"] for a in answers.read(tmp_path / "w", row["answers"])]
            endless = sum(
                tokens[-1] not in pair.tokenizer.eos_ids
                and "\n" not in pair.tokenizer.decode(tokens)
                for tokens in kept
            )
            assert len(kept) == COUNT and row["answers_cut"] == endless > 0
        else:
            rooms = [CONTEXT - len(r.prompt) for r in sweep.prompts["test"].requests]
            cut = sum(len(a) > room for a, room in zip(references, rooms, strict=True))
            assert row["answers_cut"] == cut > 0 and row["kind"] == TEACHER_FORCED
    text, _ = report(str(tmp_path / "w"))
    assert f"the pair's lengths: {sum(too_long)} of {COUNT} of test" in text
    assert "ended for want of room" in text


def bfloat16(pair):
    """Returns the pair computing in bfloat16."""
    built = {
        role: models.build({**models.describe(pair.models[role]), "dtype": "bfloat16"})
        for role in pairs.ROLES
    }
    params = {role: parameter_files.cast(built[role], pair.params[role]) for role in pairs.ROLES}
    return dataclasses.replace(pair, models=built, params=params)


def test_answers_that_are_timed_otherwise_are_counted(tmp_path):
    """In bfloat16, where one row and the rows of a batch may be rounded otherwise."""
    pair = bfloat16(tiny_pair.make())
    pairs.export(pair, tmp_path / "pair", {})
    config = tiny_pair.get_config(str(tmp_path / "pair"))
    config.evaluate.settings = ({"method": "autoregressive_expert", "temperature": 1.0},)
    config.task.test_size = COMPARED
    config.evaluate.splits = {"test": COMPARED}
    config.evaluate.max_new_tokens = 40
    config.evaluate.timing.update(num_examples=COMPARED, trials=1)
    sweep = prepared.prepare(config)
    assert evaluation.evaluate(config, str(tmp_path / "w")).failed == []
    chosen = setting(config.evaluate.settings[0])
    requests = sweep.prompts["test"].requests

    def decoded(batch):
        output = jax.device_get(sweep.engine.prepare([chosen] * len(batch), batch, [chosen])())
        return [t[:n].tolist() for t, n in zip(output.tokens, output.num_tokens, strict=True)]

    alone = [decoded([request])[0] for request in requests]
    # In the order of the sweep's batches.
    order = np.argsort([len(a) for a in sweep.prompts["test"].answers], kind="stable")
    batched = {}
    for start in range(0, COMPARED, 8):
        part = [int(i) for i in order[start : start + 8]]
        filler = [requests[part[0]]._replace(max_new_tokens=0)] * (8 - len(part))
        batched |= dict(zip(part, decoded([requests[i] for i in part] + filler), strict=False))
    differing = sum(alone[i] != batched[i] for i in range(COMPARED))
    (row,) = [row for row in results.read(tmp_path / "w") if row["kind"] == TIMING]
    assert (row["answers_compared"], row["answers_differing"]) == (COMPARED, differing)

    # Were other answers scored, it would be said: two of them are changed by hand.
    rows = results.read(tmp_path / "w")
    (scored,) = [row for row in rows if row["kind"] == QUALITY]
    path = tmp_path / "w" / answers.FOLDER / f"{scored['answers']}.jsonl.gz"
    kept = sorted(answers.read(tmp_path / "w", scored["answers"]), key=lambda a: a["id"])
    order = [request.example_id for request in requests]
    by_place = sorted(kept, key=lambda answer: order.index(answer["id"]))
    assert [answer["tokens"] for answer in by_place[:COMPARED]] == [
        list(map(int, batched[i])) for i in range(COMPARED)
    ]
    for answer in by_place[:2]:
        answer["tokens"] = [*answer["tokens"], 1]
    path.write_bytes(answers._packed(by_place))
    left = [json.dumps(row) + "\n" for row in rows if row["kind"] != TIMING]
    (tmp_path / "w" / results.FILE).write_text("".join(left))
    assert evaluation.evaluate(config, str(tmp_path / "w")).measured == 1
    (row,) = [row for row in results.read(tmp_path / "w") if row["kind"] == TIMING]
    expected = sum(alone[i] != batched[i] for i in range(2, COMPARED)) + 2
    assert (row["answers_compared"], row["answers_differing"]) == (COMPARED, expected)
