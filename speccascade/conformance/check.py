"""Checks the answers of a verifier against vectors of cases, and says case by case what is wrong.

    python check.py vectors.jsonl answers.jsonl

Needs nothing but Python. A line of answers names its case and holds any of num_accepted,
next_token, target, law and counts, as the vectors' `out` does; `counts` are of many draws, in the
place of the law, [kept][token]. Exits with 1 if any answer is wrong, with 2 if nothing can be read.
"""

import argparse
import json
import math
import sys

FIELDS = ("target", "num_accepted", "next_token", "law", "counts")


def trouble(case, answer, tolerance=1e-4):
    """Returns what is wrong with an answer to a case, a line each."""
    out, found = case["out"], []
    if not any(field in answer for field in FIELDS):
        return [f"answers nothing; give any of {', '.join(FIELDS)}"]
    for field in ("target", "law", "counts"):
        if field in answer and not _is_table(answer[field], out["law"]):
            rows, width = len(out["law"]), len(out["law"][0])
            return [f"{field} must be {rows} rows of {width} numbers that are finite, 0 or more"]
    if "target" in answer:
        for i, (own, right) in enumerate(zip(answer["target"], out["target"], strict=True)):
            if _distance(own, right) > tolerance:
                found.append(f"the target at {i} is {_show(own)}, should be {_show(right)}")
                break
    kept = answer.get("num_accepted", out["num_accepted"])
    if kept != out["num_accepted"]:
        found.append(f"keeps {kept} draft tokens, should keep {out['num_accepted']}")
    elif answer.get("next_token", out["next_token"]) != out["next_token"]:
        found.append(
            f"token {answer['next_token']} follows {kept} kept ones, should be {out['next_token']}"
        )
    if "law" in answer:
        found += _of_law(answer["law"], out["law"], tolerance)
    if "counts" in answer:
        found += _of_counts(answer["counts"], out["law"])
    return found


def _of_law(own, right, tolerance):
    reach, due = ([sum(row) for row in table] for table in (own, right))
    if _distance(reach, due) > tolerance:
        return [f"keeps 0, 1, ... tokens with probabilities {_show(reach)}, should be {_show(due)}"]
    for i, (row, expected) in enumerate(zip(own, right, strict=True)):
        if _distance(row, expected) > tolerance:
            told = [_show([x / (sum(y) or 1) for x in y]) for y in (row, expected)]
            return [f"the token after {i} kept ones has law {told[0]}, should be {told[1]}"]
    return []


def _of_counts(counts, law):
    """Five standard errors: a right verifier exceeds them once in a million cells."""
    total = sum(map(sum, counts))
    if total == 0:
        return ["counts are all zero"]
    for i, (row, expected) in enumerate(zip(counts, law, strict=True)):
        for token, (count, chance) in enumerate(zip(row, expected, strict=True)):
            if abs(count / total - chance) > 5 * math.sqrt(chance * (1 - chance) / total) + 1e-6:
                return [
                    f"of {total} draws {count} kept {i} tokens before token {token}, should be "
                    f"about {chance * total:.0f}"
                ]
    return []


def _distance(own, right):
    return max(abs(x - y) for x, y in zip(own, right, strict=True))


def _show(row):
    return "[" + ", ".join(f"{x:.4g}" for x in row) + "]"


def _is_table(table, like):
    return (
        isinstance(table, list)
        and [len(row) if isinstance(row, list) else -1 for row in table] == [len(r) for r in like]
        and all(isinstance(x, (int, float)) and 0 <= x < math.inf for row in table for x in row)
    )


def read(path):
    """Returns the lines of a file by their case."""
    found = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                if row["case"] in found:
                    raise ValueError(f"case {row['case']} is there twice")
                found[row["case"]] = row
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path} line {number} is no line of a case: {error}") from None
    return found


def main(argv=None):
    """Checks two files and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("vectors")
    parser.add_argument("answers")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of probabilities")
    given = parser.parse_args(argv)
    try:
        cases, answers = read(given.vectors), read(given.answers)
        if unknown := sorted(set(answers) - set(cases)):
            raise ValueError(f"{given.answers} has cases that {given.vectors} lacks: {unknown[:5]}")
        if not answers:
            raise ValueError(f"{given.answers} has no answers")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    wrong = {name: trouble(cases[name], own, given.tolerance) for name, own in answers.items()}
    wrong = {name: lines for name, lines in wrong.items() if lines}
    for name, lines in wrong.items():
        print("\n".join(f"{name}: {line}" for line in lines))
    left = f", {len(cases) - len(answers)} not answered" if len(answers) < len(cases) else ""
    print(f"{len(answers)} of {len(cases)} cases answered{left}: {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
