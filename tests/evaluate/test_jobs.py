from speccascade.evaluate.jobs import (
    ORACLE,
    QUALITY,
    TEACHER_FORCED,
    TIMING,
    plan,
    teacher_forced,
)
from speccascade.inference.reading import expand
from speccascade.inference.sweep import product


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
