"""BLEU, which is no mean of examples' scores, from decoded texts to rows."""

import json

import ml_collections
import numpy as np
import pytest
import sacrebleu

from speccascade import pairs
from speccascade.evaluate import evaluation, prepared
from speccascade.workdir import answers, results
from tests import tiny_pair

EXPERT = {"method": "autoregressive_expert"}


def config(pair, path, references):
    rows = [{"translation": {"en": f"No. {i}", "de": text}} for i, text in enumerate(references)]
    (path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = tiny_pair.get_config(pair)
    made.task = ml_collections.ConfigDict({"name": "wmt14", "path": str(path), "format": "t5"})
    made.evaluate.settings = (EXPERT,)
    made.evaluate.splits = ml_collections.ConfigDict({"test": len(references)})
    made.evaluate.timing.num_examples = 0
    made.evaluate.max_new_tokens = 24
    return made


def decoded(made, workdir):
    evaluation.evaluate(made, workdir)
    (row,) = results.read(workdir)
    kept = {answer["id"]: answer["text"] for answer in answers.read(workdir, row["answers"])}
    requests = prepared.prepare(made).prompts["test"].requests
    return [kept[request.example_id].strip() for request in requests]


def test_a_rows_quality_is_sacrebleus(tmp_path):
    directory = str(tmp_path / "pair")
    pairs.export(tiny_pair.make(), directory, {})
    texts = decoded(config(directory, tmp_path, ["not yet known"] * 8), str(tmp_path / "first"))
    references = [f"{text} and {i} more words" for i, text in enumerate(texts)]
    outcome = evaluation.evaluate(config(directory, tmp_path, references), str(tmp_path / "w"))
    assert outcome == evaluation.Outcome(measured=1, failed=[])
    (row,) = results.read(str(tmp_path / "w"))
    wanted = sacrebleu.corpus_bleu(texts, [references]).score
    assert 0 < wanted < 100 and row["aggregate"] == "bleu"
    assert row["quality"] == pytest.approx(wanted)
    assert np.shape(row["scores"]) == (8, 10)
    low, high = row["quality_ci"]
    assert low < wanted < high
