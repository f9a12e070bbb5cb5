"""A kernel chosen in a setting like any rule, decoded by the engine, and refused where it has no
target."""

import dataclasses

import pytest

from speccascade import rules
from speccascade.errors import UserError
from speccascade.evaluate import jobs
from speccascade.inference import api, methods
from speccascade.inference.engine import program
from speccascade.inference.reading import from_fields, setting
from speccascade.kernels import KERNELS
from speccascade.lm_eval import likelihood
from speccascade.report.choice import follows_expert
from speccascade.trace import tracing
from tests import tiny_pair

CACTUS = {"method": "kernel", "rule": "cactus", "delta": 0.5, "draft_length": 2}


def test_a_setting_names_a_kernel_and_its_knobs():
    made = setting({**CACTUS, "temperature": 1})
    assert (made.label, made.choices) == ("cactus", "delta=0.5 N=2 kernel")
    assert from_fields(made.fields()) == made
    relaxed = setting({**CACTUS, "rule": "trtllm_relaxed", "delta": 0.2, "begin": 1, "end": 2})
    assert dict(relaxed.knobs) == {"delta": 0.2, "k": 10, "begin": 1, "end": 2}


def test_its_law_is_that_of_its_blocks():
    made = setting({**CACTUS, "temperature": 1})
    longer = dataclasses.replace(made, draft_length=3)
    assert made.method.law(made) != longer.method.law(longer)
    same = [setting({"rule": "spec", "draft_length": n, "temperature": 1}) for n in (2, 3)]
    assert same[0].method.law(same[0]) == same[1].method.law(same[1])


def test_a_twin_is_of_a_mode_or_of_a_target():
    made = setting({**CACTUS, "method": "twin", "temperature": 1})
    assert (made.label, made.choices) == ("cactus twin", "delta=0.5 N=2")
    assert from_fields(made.fields()) == made and not made.method.in_blocks
    longer = dataclasses.replace(made, draft_length=3)
    assert made.method.law(made) != longer.method.law(longer) and program(made) != program(longer)
    endless = {key: value for key, value in CACTUS.items() if key != "draft_length"}
    assert setting({**endless, "method": "twin"}).draft_length is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rule": "fly", "window": 3, "draft_length": 4}, "fly with theta=0.3 window=3 and "),
        ({"rule": "fly", "window": 4}, "and no draft_length has no twin"),
        ({"rule": "asd", "budget": 1, "draft_length": 2}, "asd with .*most=1 .* has no twin"),
        ({"rule": "spec", "draft_length": 2}, "rule spec is a rule with a target"),
        ({**CACTUS, "drafter": "lookup"}, "the drafts of a twin are a model's"),
        ({**CACTUS, "draft_length": 0}, "draft_length=0 must be at least 1"),
    ],
)
def test_a_mode_without_a_twin_is_said(given, message):
    with pytest.raises(UserError, match=message):
        setting({**given, "method": "twin"})
    setting({"method": "twin", "rule": "fly", "window": 4, "draft_length": 4})
    setting({"method": "twin", "rule": "asd", "budget": 1, "most": 2, "draft_length": 2})


def test_it_shares_a_program_with_other_kernels_and_no_rule():
    sglang = {"method": "kernel", "rule": "sglang_threshold", "draft_length": 2}
    spec = {"rule": "spec", "draft_length": 2}
    found = [program(setting(given)) for given in (CACTUS, sglang, spec)]
    assert found[0] == found[1] != found[2]


def test_lossless_knobs_follow_the_expert():
    assert follows_expert(setting({**CACTUS, "delta": 0}))
    assert not follows_expert(setting(CACTUS))


def test_what_needs_a_target_does_without():
    made = setting(CACTUS)
    assert jobs.teacher_forced([made]) == []
    with pytest.raises(UserError, match="what it writes next is no function of the text"):
        likelihood.target(made)
    with pytest.raises(UserError, match="setting cactus .* has no target to trace"):
        tracing.trace_prompt(None, "1", [made])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({**CACTUS, "method": "speculative"}, "rule cactus is an acceptance kernel; here it is"),
        ({**CACTUS, "rule": "spec"}, "rule spec is a rule with a target; here it is one of medusa"),
        ({**CACTUS, "rule": "spec"}, "sglang_threshold, .*, cactus; or give method=speculative"),
        ({**CACTUS, "method": "speculative"}, "topk_relaxed; or give method=kernel"),
        ({**CACTUS, "rule": "cactsu"}, "rule 'cactsu' is unknown; choose one of: medusa_typical"),
        ({**CACTUS, "delta": -1}, r"delta=-1\.0 is outside its domain"),
        ({**CACTUS, "verifier": "block"}, "verifier unknown here"),
        (
            {"method": "kernel", "rule": "asd", "budget": 1, "most": 1.5, "draft_length": 2},
            r"most=1.5 is outside its domain whole numbers in \[0, inf\)",
        ),
        (
            {"method": "kernel", "rule": "trtllm_relaxed", "begin": 3, "end": 3, "draft_length": 2},
            "begin=3, end=3 must be different tokens",
        ),
        ({"method": "token_cascade", "rule": "fly"}, "rule fly is an acceptance kernel"),
        (
            {"rule": "spec", "draft_length": 2, "middle_rule": "fly", "middle_draft_length": 1},
            "rule fly is an acceptance kernel",
        ),
    ],
)
def test_what_does_not_go_together_is_said(given, message):
    with pytest.raises(UserError, match=message):
        setting(given)


def test_a_token_that_the_pair_has_not():
    given = {**CACTUS, "rule": "trtllm_relaxed", "begin": 1, "end": 2}
    pair = tiny_pair.make()
    found = [setting({**given, "end": end}) for end in (2, pair.tokenizer.vocab_size)]
    assert found[0].method.trouble(found[0], pair) is None
    assert "names no token of pair tiny" in found[1].method.trouble(found[1], pair)
    assert found[1].method.trouble(found[1], pair).endswith("change end")


def test_an_unknown_rule_is_told_of_kernels_too():
    with pytest.raises(UserError, match=f"unknown; choose one of: {', '.join(rules.RULES)}"):
        rules.definition("cactsu")
    assert not set(KERNELS) & set(rules.RULES)
    assert methods.METHODS["kernel"].in_blocks


@pytest.mark.slow
def test_where_a_kernel_is_lossless_the_engine_writes_what_the_expert_writes():
    pair, how = tiny_pair.make(), {"max_new_tokens": 6, "batch_size": 8}
    expert = api.generate_text(pair, tiny_pair.PROMPT, method="autoregressive_expert", **how)
    strict = {"method": "kernel", "rule": "asd", "budget": 0, "draft_length": 2}
    found = api.generate_text(pair, tiny_pair.PROMPT, **strict, **how)
    assert found[0].tokens == expert[0].tokens
    assert 0 < found[0].statistics["expert_calls"] <= expert[0].statistics["expert_calls"]


@pytest.mark.slow
def test_greedy_a_mode_and_its_twin_write_the_same():
    pair, how = tiny_pair.make(), {"max_new_tokens": 6, "batch_size": 8}
    thinks = {"begin": pair.tokenizer.encode(tiny_pair.PROMPT)[0], "end": 0}
    mode = {"rule": "vllm_relaxed", "ratio": 0.0, "k": 300, **thinks, "draft_length": 2}
    written = [
        api.generate_text(pair, tiny_pair.PROMPT, method=method, **mode, **how)[0]
        for method in ("kernel", "twin")
    ]
    expert = api.generate_text(pair, tiny_pair.PROMPT, method="autoregressive_expert", **how)[0]
    assert written[0].tokens == written[1].tokens != expert.tokens
    calls = [each.statistics["expert_calls"] for each in written]
    assert calls[0] < calls[1] == len(written[1].tokens)
