import dataclasses

from speccascade.evaluate.jobs import (
    ORACLE,
    QUALITY,
    TEACHER_FORCED,
    TIMING,
    Job,
    plan,
    teacher_forced,
)
from speccascade.inference.setting import expand, setting
from speccascade.inference.sweep import product

ENTRY = {"rule": "bild", "alpha": 2.0, "draft_length": 5, "temperature": 1.0}
PROVENANCE = {"task": "t", "config": "c", "pair": "p", "tokenizer": "k", "code": "v"}


def key(job: Job, **provenance) -> str:
    return job.identity({**PROVENANCE, **provenance})["key"]


def test_every_field_changes_the_key():
    base = Job(QUALITY, setting(ENTRY), "test", 100)
    others = [
        dataclasses.replace(base, kind=TIMING),
        dataclasses.replace(base, split="validation"),
        dataclasses.replace(base, num_examples=101),
        dataclasses.replace(base, trials=3),
    ]
    changes = [
        {"rule": "token_v3"},
        {"alpha": 2.5},
        {"fallback": 0.5},
        {"draft_length": 6},
        {"verifier": "block"},
        {"temperature": 0.0},
        {"drafter_top_k": 5},
        {"expert_top_k": 5},
        {"expert_top_p": 0.5},
        {"expert_min_p": 0.5},
        {"seed": 1},
    ]
    others += [dataclasses.replace(base, setting=setting({**ENTRY, **c})) for c in changes]
    keys = [key(base), *map(key, others)]
    keys += [key(base, **{name: "other"}) for name in PROVENANCE]
    assert len(set(keys)) == len(keys)


def test_key_is_stable():
    # Golden: the keys of rows that are on people's disks. It may only change together with the
    # fields of a row; print the new one with this very expression.
    assert key(Job(QUALITY, setting(ENTRY), "test", 100)) == "fe4c8da6eb02c514"
    # Written differently, the same setting.
    same = setting({**ENTRY, "alpha": 2, "fallback": 0.6, "verifier": "token", "seed": 0})
    assert key(Job(QUALITY, same, "test", 100)) == key(Job(QUALITY, setting(ENTRY), "test", 100))


def test_plan_times_settings_once_whatever_their_seeds():
    settings = expand(product(rule="spec", draft_length=(3, 5), temperature=1.0, seed=(4, 5)))
    config = {
        "splits": {"validation": 10, "test": 2},
        "timing": {"num_examples": 3, "trials": 2},
    }
    jobs = plan(settings, config)
    # The oracle and the rule, whatever their draft lengths and seeds, on either split.
    assert [j.kind for j in jobs] == [QUALITY] * 8 + [TEACHER_FORCED] * 4 + [TIMING] * 4
    timed = [j for j in jobs if j.kind == TIMING]
    assert {j.setting.seed for j in timed} == {4}
    assert [(j.split, j.num_examples) for j in timed] == [("validation", 3)] * 2 + [("test", 2)] * 2
    config["timing"]["num_examples"] = 0
    assert {j.kind for j in plan(settings, config)} == {QUALITY, TEACHER_FORCED}


def test_rules_are_teacher_forced_once_whatever_it_takes_to_draft():
    both = {"temperature": (0.0, 1.0)}
    settings = expand(
        product(method=("autoregressive_expert", "autoregressive_drafter"), **both)
        + product(method="sequence_cascade", threshold=-1.0, **both)
        + product(method="token_cascade", rule="chow", alpha=0.1, **both)
        + product(rule="chow", alpha=0.1, draft_length=(3, 5), verifier=("token", "block"), **both)
        + product(rule="spec", draft_length=3, expert_top_p=0.9, temperature=0.5)
    )
    forced = teacher_forced(settings)
    assert [s.temperature for s in forced if s.method == ORACLE] == [0.0, 1.0, 0.5]
    rules = [s for s in forced if s.method != ORACLE]
    assert [(s.rule, s.temperature) for s in rules] == [("chow", 0.0), ("chow", 1.0), ("spec", 0.5)]
    assert rules[2].expert_truncation == (("top_p", 0.9),)
    assert {(s.draft_length, s.verifier, s.seed) for s in rules} == {(None, None, 0)}
    assert teacher_forced(expand(product(method="autoregressive_expert", **both))) == []
