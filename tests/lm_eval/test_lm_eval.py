"""The library runs tasks of local files over a tiny pair; skipped where it is not installed."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from speccascade import pairs
from speccascade.lm_eval.arguments import read
from speccascade.lm_eval.backend import Backend
from tests import chat_pair, tiny_pair

ROOT = pathlib.Path(__file__).parents[2]
DOCS = [
    {"question": "Ann has 12 pens and", "answer": "7", "choices": ["7", "12", "19"], "gold": 2},
    {"question": "12 + 7 =", "answer": "19", "choices": ["19", "pens", "7"], "gold": 0},
]
TASKS = {
    "toy_answers": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], do_sample: false, max_gen_toks: 6}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
    "toy_samples": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
repeats: 3
generation_kwargs: {until: ["\\n"], do_sample: true, temperature: 1.0, max_gen_toks: 6}
filter_list: [{name: all, filter: [{function: take_first}]}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
    "toy_choices": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: gold
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "toy_texts": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: word_perplexity, aggregation: weighted_perplexity}]
""",
}


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A folder with the pair, the tasks and their rows."""
    folder = tmp_path_factory.mktemp("harness")
    pairs.export(tiny_pair.make(), str(folder / "pair"), {})
    (folder / "rows.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    for name, text in TASKS.items():
        data = {"test": str(folder / "rows.jsonl")}
        head = f"task: {name}\ndataset_path: json\ntest_split: test\n"
        head += f"dataset_kwargs: {json.dumps({'data_files': data})}\n"
        (folder / f"{name}.yaml").write_text(head + text)
    return folder


def command(there, *more, rule="token_v3", pair="pair", **env):
    given = f"pair={there / pair},rule={rule},alpha=0.2,draft_length=2"
    line = [sys.executable, "-m", "speccascade.lm_eval", "--model", "speccascade"]
    line += ["--model_args", given, "--include_path", str(there), *more]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **env}
    return subprocess.run(line, cwd=there, env=env, capture_output=True, text=True)


def test_without_the_library_one_line_says_what_to_install(there):
    # A folder in front of all others in which it cannot be found.
    (there / "without/lm_eval").mkdir(parents=True)
    (there / "without/lm_eval/__init__.py").write_text("raise ImportError('none here')\n")
    done = command(there, PYTHONPATH=f"{there / 'without'}:{ROOT}")
    assert done.returncode == 2
    wanted = "error: the package lm_eval is missing: pip install -r requirements-lm-eval.txt\n"
    assert done.stderr == wanted


def test_tasks_of_local_files(there):
    pytest.importorskip("lm_eval.api.model", reason="lm_eval is not installed")
    done = command(
        there,
        *("--tasks", ",".join(TASKS), "--output_path", str(there / "out"), "--log_samples"),
        *("--batch_size", "8"),
    )
    assert done.returncode == 0, done.stderr
    own = {"rule": "token_v3", "alpha": 0.2, "draft_length": 2, "pair": "x"}
    backend = Backend(pairs.load(str(there / "pair")), read(own))

    def samples(task):
        (path,) = (there / "out").rglob(f"samples_{task}_*.jsonl")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return sorted(rows, key=lambda row: row["doc_id"])

    asked = [(doc["question"], {"until": ["\n"], "max_gen_toks": 6}) for doc in DOCS]
    answers = backend.generate(asked)
    assert [row["resps"] for row in samples("toy_answers")] == [[[text]] for text in answers]
    warm = {"until": ["\n"], "max_gen_toks": 6, "do_sample": True, "temperature": 1.0}
    repeated = backend.generate([(doc["question"], warm) for doc in DOCS for _ in range(3)])
    found = [row["resps"][0] for row in samples("toy_samples")]
    assert found == [repeated[:3], repeated[3:]] and len(set(repeated)) > 2

    for doc, row in zip(DOCS, samples("toy_choices"), strict=True):
        scored = backend.loglikelihood([(doc["question"], f" {c}") for c in doc["choices"]])
        values = [value for value, _ in scored]
        told = [float(resps[0][0]) for resps in row["resps"]]
        assert told == pytest.approx(values, abs=1e-4)
        assert row["acc"] == float(values.index(max(values)) == doc["gold"])
    totals = backend.loglikelihood_rolling([doc["question"] for doc in DOCS])
    told = [float(row["resps"][0][0]) for row in samples("toy_texts")]
    assert told == pytest.approx(totals, abs=1e-4)
    (path,) = (there / "out").rglob("results_*.json")
    config = json.loads(path.read_text())["config"]
    assert config["speccascade_setting"] == "token_v3 alpha=0.2 N=2 token T=0"


def test_conversations(there):
    pytest.importorskip("lm_eval.api.model", reason="lm_eval is not installed")
    pairs.export(chat_pair.make(there / "tokenizer"), str(there / "chat"), {})
    asked = ("--tasks", "toy_answers,toy_choices", "--apply_chat_template", "--num_fewshot", "0")
    saved = ("--output_path", str(there / "talk/run.json"), "--log_samples")
    done = command(there, *asked, *saved, "--batch_size", "8", pair="chat")
    assert done.returncode == 0, done.stderr
    own = {"rule": "token_v3", "alpha": 0.2, "draft_length": 2, "pair": "x"}
    backend = Backend(pairs.load(str(there / "chat")), read(own))
    contexts = [backend.chat([{"role": "user", "content": doc["question"]}]) for doc in DOCS]
    answers = backend.generate([(c, {"until": ["\n"], "max_gen_toks": 6}) for c in contexts])
    (path,) = (there / "talk").glob("samples_toy_answers_*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["resps"] for row in rows] == [[[text]] for text in answers]
    assert [row["arguments"]["gen_args_0"]["arg_0"] for row in rows] == contexts
    (path,) = (there / "talk").glob("samples_toy_choices_*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for context, doc, row in zip(contexts, DOCS, rows, strict=True):
        following = [row["arguments"][f"gen_args_{i}"]["arg_1"] for i in range(3)]
        scored = [value for value, _ in backend.loglikelihood([(context, f) for f in following])]
        told = [float(resps[0][0]) for resps in row["resps"]]
        assert told == pytest.approx(scored, abs=1e-4) and len(doc["choices"]) == 3
    assert "special tokens" not in done.stderr


def test_a_users_mistake_is_one_line(there):
    pytest.importorskip("lm_eval.api.model", reason="lm_eval is not installed")
    done = command(there, "--tasks", "toy_answers", rule="nonsense")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: model_args: setting rule=nonsense") and "choose one of" in last
    assert "Traceback" not in done.stderr
