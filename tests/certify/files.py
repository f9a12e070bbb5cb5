"""Files of saved answers, as engines write them."""

import json

QUESTIONS = {1: "Paris", 2: "Rome", 3: "Bern"}


def write(path, rows, end="\n"):
    """Writes JSON lines and returns the path as text."""
    path.write_text("\n".join(json.dumps(row) for row in rows) + end)
    return str(path)


def plain(path, scores, **fields):
    """Writes plain rows of scores, one a prompt, ids from 0 on; fields are lists or constants."""
    rows = []
    for i, score in enumerate(scores):
        more = {k: v[i] if isinstance(v, list) else v for k, v in fields.items()}
        rows.append({"id": i, "score": score, **more})
    return write(path, rows)


def spec_bench(question_id, turns, *, choices=1):
    """A row of Spec-Bench: two target passes a turn, of 3 tokens and 1."""
    choice = {
        "turns": turns,
        "decoding_steps": [2] * len(turns),
        "new_tokens": [4] * len(turns),
        "wall_time": [0.5] * len(turns),
        "accept_lengths": [3, 1] * len(turns),
    }
    return {
        "question_id": question_id,
        "category": "qa",
        "answer_id": "x",
        "model_id": "m",
        "choices": [{"index": i, **choice} for i in range(choices)],
        "tstamp": 1.0,
    }


def harness(doc_id, text, right, filter_name="strict-match"):
    """A row of lm-evaluation-harness with --log_samples."""
    return {
        "doc_id": doc_id,
        "doc": {"question": "?"},
        "target": "4",
        "arguments": {"gen_args_0": {"arg_0": "?", "arg_1": {"until": ["\n"]}}},
        "resps": [[f"It is {text}"]],
        "filtered_resps": [text],
        "filter": filter_name,
        "metrics": ["exact_match"],
        "doc_hash": "a",
        "prompt_hash": "b",
        "target_hash": "c",
        "exact_match": right,
    }
