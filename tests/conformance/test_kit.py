"""The kit: what it holds is right, the real verifier passes, every planted mistake is caught."""

import functools
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import verify
from speccascade.conformance import check, expected, kit
from speccascade.conformance.cases import CLEAR, SIZE
from speccascade.conformance.expected import block_of, target
from speccascade.conformance.plain import MISTAKES, RIGHT
from speccascade.rules import RULES
from tests import rule_oracle, toy_head

OUTCOMES = ("num_accepted", "next_token")


@pytest.fixture(
    scope="module",
    params=[("spec", "opt", "token_v3", "lenient"), pytest.param(RULES, marks=pytest.mark.slow)],
    ids=["few", "all"],
)
def some(request):
    """Rules: few of them compile in a second or two."""
    return tuple(request.param)


@pytest.fixture(scope="module")
def made(some):
    return kit.vectors(rules=some)


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    """The kit as files, of vectors that are made once."""
    directory = tmp_path_factory.mktemp("kit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kit, "vectors", lambda seed: made)
        kit.write(str(directory))
    return directory


def test_every_rule_and_both_verifiers_are_there(made, some):
    there = {(v.case.verifier, v.case.rule) for v in made}
    assert there == {(method, rule) for method in verify.METHODS for rule in some}
    names = [v.case.name for v in made]
    assert len(set(names)) == len(names)
    kept = [v.row["out"]["num_accepted"] for v in made if v.case.drafted == SIZE]
    assert min(kept.count(i) for i in range(SIZE + 1)) > 2
    assert {v.case.drafted for v in made} == set(range(SIZE + 1))
    assert any(len(v.row["p"][0]) > 6 for v in made)  # padded ids


def test_inputs_are_exact_and_distributions(made):
    for vector in made:
        for name in ("q", "p", "q1", "p1"):
            table = np.array(vector.row[name])
            assert np.array_equal(64 * table, np.round(64 * table)), vector.case.name
            there = table if name.startswith("p") else table[: vector.case.drafted + 1]
            assert np.all(there.sum(-1) == 1)
            assert np.all(table[len(there) :] == 0)
        chance = [vector.case.q[i, x] for i, x in enumerate(vector.case.draft) if x >= 0]
        assert len(chance) == vector.case.drafted and min(chance, default=1) > 0


def test_targets_are_the_closed_forms_of_the_rules(made):
    for vector in made:
        case = vector.case
        knobs = {**toy_head.knobs_of(RULES[case.rule]), **case.knobs}
        if "head" in knobs:
            continue  # its weights are not in the vectors, only what comes of them
        for i, row in enumerate(vector.row["out"]["target"]):
            tables = [table[i] for table in (case.q, case.p, case.q1, case.p1)]
            pi = rule_oracle.oracle(case.rule, knobs, *tables)[0]
            np.testing.assert_allclose(row, pi, atol=1e-8, err_msg=case.name)
            for name in set(knobs) & {"alpha", "fallback"}:
                if case.rule in expected.CONTINUOUS:
                    continue
                for step in (-0.9 * CLEAR, 0.9 * CLEAR):  # no decision turns over
                    near = {**knobs, name: knobs[name] + step}
                    pi = rule_oracle.oracle(case.rule, near, *tables)[0]
                    np.testing.assert_allclose(row, pi, atol=1e-8, err_msg=case.name)


def test_laws_are_those_of_the_plain_verifier_and_of_the_target(made):
    for vector in made:
        out = {k: np.array(x) for k, x in vector.row["out"].items()}
        pi = target(vector.case)
        plain = RIGHT[vector.case.verifier]
        block = block_of(plain, vector.case, pi)
        np.testing.assert_allclose(out["law"], plain.law(block), atol=1e-8)
        assert out["law"].sum() == pytest.approx(1, abs=1e-6)
        told = plain.outcome(block, vector.accept, vector.token)
        assert told == (out["num_accepted"], out["next_token"]), vector.case.name


@pytest.mark.slow
def test_the_outcome_is_the_same_in_float32_and_with_uniforms_that_are_a_little_off(made):
    for method in verify.METHODS:
        own = [v for v in made if v.case.verifier == method and len(v.case.p[0]) == 6]
        pi = np.stack([target(v.case) for v in own])
        expected = [(v.row["out"]["num_accepted"], v.row["out"]["next_token"]) for v in own]
        for step in (-0.9 * CLEAR, 0.0, 0.9 * CLEAR):
            accept = np.stack([v.accept + step * (v.case.accept is None) for v in own])
            token = np.array([v.token for v in own]) + step
            accept, token = (np.float32(np.clip(u, 0, 0.999)) for u in (accept, token))
            found = jax.jit(functools.partial(verify.verify, method=method))(
                None,
                jnp.asarray(np.stack([v.case.draft for v in own]), jnp.int32),
                jnp.asarray(np.stack([v.case.q[:-1] for v in own]), jnp.float32),
                jnp.asarray(pi, jnp.float32),
                length=jnp.asarray([v.case.drafted for v in own]),
                uniforms=verify.Uniforms(accept, token),
            )
            pairs = zip(found.num_accepted.tolist(), found.next_token.tolist(), strict=True)
            assert list(pairs) == expected


# ---- the checker ----


def checked(*arguments):
    """Runs the checker where nothing of this project can be imported."""
    command = [sys.executable, "-I", "-S", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_projects_verifier_passes_without_anything_installed(folder):
    done = checked(folder / "check.py", folder / "vectors.jsonl", folder / "answers.jsonl")
    count = len((folder / "vectors.jsonl").read_text().splitlines())
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{count} of {count} cases answered: 0 wrong\n"


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", [*MISTAKES, *kit.RULE_MISTAKES])
def test_every_planted_mistake_is_caught(name, folder, tmp_path, capsys):
    wrong = folder / "wrong" / f"{kit._file_name(name)}.jsonl"
    assert check.main([str(folder / "vectors.jsonl"), str(wrong)]) == 1
    said = capsys.readouterr().out
    assert said.splitlines()[-1].split()[-2] != "0" and ": " in said
    # By what an engine does with given uniforms alone; and, where it has one, by its law alone.
    for fields in (OUTCOMES, ("law",)):
        part = [{k: row[k] for k in ("case", *fields)} for row in rows(wrong)]
        path = tmp_path / "part.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in part))
        same_law = name == "kept at a uniform of zero" and fields == ("law",)
        assert check.main([str(folder / "vectors.jsonl"), str(path)]) == (0 if same_law else 1)


def test_a_right_verifier_in_any_words_passes(made, folder, tmp_path):
    answers = [kit.answer(v, RIGHT[v.case.verifier], target(v.case)) for v in made]
    path = tmp_path / "plain.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in answers))
    assert check.main([str(folder / "vectors.jsonl"), str(path)]) == 0


def drawn(vector, law, draws):
    rng = np.random.default_rng(5)
    counts = rng.multinomial(draws, law.ravel() / law.sum()).reshape(law.shape)
    return {"case": vector.case.name, "counts": counts.tolist()}


def test_counts_of_draws_take_the_place_of_a_law(made):
    own = [v for v in made if v.case.verifier == "block" and v.case.rule == "spec"]
    found = 0
    for vector in own:
        right = np.array(vector.row["out"]["law"])
        assert check.trouble(vector.row, drawn(vector, right, 20_000)) == []
        wrong = MISTAKES["block residual without its weight"]
        other = wrong.law(block_of(wrong, vector.case, target(vector.case)))
        found += check.trouble(vector.row, drawn(vector, other, 20_000)) != []
    assert found > 0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "answers nothing; give any of target, num_accepted"),
        ({"num_accepted": 9}, "keeps 9 draft tokens, should keep"),
        ({"next_token": -1}, "token -1 follows"),
        ({"law": [[1.0]]}, "law must be 4 rows of 6 numbers"),
        ({"law": [["a"] * 6] * 4}, "law must be 4 rows of 6 numbers"),
        ({"law": [[float("nan")] * 6] * 4}, "law must be 4 rows of 6 numbers"),
        ({"law": [[1 / 24] * 6] * 4}, "keeps 0, 1, ... tokens with probabilities [0.25, 0.25"),
        ({"target": [[1 / 6] * 6] * 4}, "the target at 0 is [0.1667"),
        ({"counts": [[0] * 6] * 4}, "counts are all zero"),
        ({"counts": [[50] * 6] * 4}, "of 1200 draws 50 kept 0 tokens before token"),
    ],
)
def test_what_is_wrong_is_said(answer, message, made):
    vector = next(v for v in made if v.case.name == "token/spec/0")
    [line] = check.trouble(vector.row, answer)
    assert message in line


def test_files_that_cannot_be_checked(folder, tmp_path, capsys):
    vectors = str(folder / "vectors.jsonl")

    def refused(text, message):
        path = tmp_path / "bad.jsonl"
        path.write_text(text)
        assert check.main([vectors, str(path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and message in error

    whole = (folder / "answers.jsonl").read_text()
    line = whole.splitlines()[0]
    refused("", "has no answers")
    refused(whole[:-20], "is no line of a case")
    refused(f"{line}\n{line}\n", "is there twice")
    refused('{"case": "mine"}\n', "has cases that")
    refused("[]\n", "is no line of a case")
    assert check.main([vectors, str(tmp_path / "nowhere")]) == 2
    few = tmp_path / "few.jsonl"
    few.write_text(line + "\n")
    assert check.main([vectors, str(few)]) == 0
    assert "not answered: 0 wrong" in capsys.readouterr().out


@pytest.mark.slow
def test_the_script_writes_the_kit_and_another_seed_other_cases(tmp_path):
    for seed in (0, 1):
        command = [sys.executable, "scripts/export_vectors.py", f"--out={tmp_path / str(seed)}"]
        done = subprocess.run([*command, f"--seed={seed}"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        own = tmp_path / str(seed)
        assert done.stdout.splitlines()[0] == str(own / "vectors.jsonl")
        done = checked(own / "check.py", own / "vectors.jsonl", own / "answers.jsonl")
        assert done.returncode == 0 and ": 0 wrong" in done.stdout
    texts = [pathlib.Path(tmp_path, s, "vectors.jsonl").read_text() for s in "01"]
    assert texts[0] != texts[1]
    shutil.rmtree(tmp_path / "0")
