"""A trace is the decode that `generate` runs, and its flags are checked before it."""

import dataclasses

import jax
import numpy as np
import pytest

import speccascade
from speccascade import pairs
from speccascade.errors import UserError
from speccascade.text.prompt import Prompt
from speccascade.trace import Kind, Reason, display, flags, trace_prompt
from tests import tiny_pair
from tests.trace import toy_traces


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(toy_traces.SETTINGS)))
def test_the_trace_is_what_generate_gives(index):
    setting, trace = toy_traces.settings()[index], toy_traces.comparison().traces[index]
    how = {"rule": setting.rule, **dict(setting.knobs), "draft_length": 3, "verifier": None}
    how |= {"verifier": setting.verifier, "temperature": setting.temperature, "seed": setting.seed}
    how |= {f"expert_{key}": value for key, value in setting.expert_truncation}
    [completion] = speccascade.generate_text(
        toy_traces.pair(), [toy_traces.EVIL], max_new_tokens=toy_traces.ROOM, **how
    )
    assert [token.id for token in trace.tokens] == completion.tokens
    assert trace.text == completion.text == "".join(token.text for token in trace.tokens)
    told = {name: completion.statistics[name] for name in trace.statistics}
    assert trace.statistics.keys() == told.keys()
    for name, figure in told.items():
        assert trace.statistics[name] == pytest.approx(figure, nan_ok=True), name


@pytest.mark.slow
def test_blocks_agree_with_the_statistics():
    for trace in toy_traces.comparison().traces:
        assert len(trace.blocks) == trace.statistics["expert_calls"]
        assert len(trace.tokens) == trace.statistics["tokens"]
        starts = np.cumsum([0, *(len(block.tokens) for block in trace.blocks)])
        assert [block.start for block in trace.blocks] == starts[:-1].tolist()
        assert not trace.finished or trace.tokens[-1].ends


@pytest.mark.slow
def test_draws_are_those_that_decided():
    for trace in toy_traces.comparison().traces:
        if trace.setting.verifier == "block":
            continue
        for block in trace.blocks:
            strict = []
            for token in (*block.tokens, *block.discarded):
                if token.drafted:
                    kept = token.kind is not Kind.DISCARDED
                    if kept or token.reason is Reason.REJECTED:
                        assert (token.draw * token.q < token.pi) == kept
                    strict.append(token.draw * token.q < token.p)
            assert block.strict_kept == [*strict, False].index(False)


@pytest.mark.slow
def test_what_strict_verification_does_is_what_spec_does():
    # Up to the first block that differs, in what is kept or in what is drawn behind it, the drafts
    # are the same, and so are the draws.
    spec, token_v3 = toy_traces.comparison().traces[:2]
    assert not any(block.strict_cut is not None for block in spec.blocks)
    cuts = 0
    for own, block in zip(spec.blocks, token_v3.blocks, strict=False):
        kept = sum(token.kind is Kind.KEPT for token in own.tokens)
        assert kept == block.strict_kept
        if block.strict_cut is not None:
            cuts += 1
            assert kept == block.strict_cut
            assert own.tokens[kept].id == block.strict_next.id
        if [token.id for token in own.tokens] != [token.id for token in block.tokens]:
            break
    assert cuts


@pytest.mark.slow
def test_stop_strings_end_an_answer():
    first = toy_traces.comparison().traces[0]
    texts = [t.text for t in first.tokens[4:]]
    stop = next(text for text in texts if text and text.isascii() and text.isprintable())
    comparison = trace_prompt(
        toy_traces.pair(),
        toy_traces.EVIL,
        toy_traces.settings()[:1],
        max_new_tokens=toy_traces.ROOM,
        stop_strings=[stop],
    )
    [trace] = comparison.traces
    assert trace.finished and len(trace.tokens) < len(first.tokens)
    assert stop not in trace.text
    assert stop in "".join(token.text for token in trace.tokens)


def test_logits_that_are_not_finite():
    pair = toy_traces.pair()
    broken = {**pair.params, "expert": jax.tree.map(lambda x: x * np.nan, pair.params["expert"])}
    with pytest.raises(UserError, match="not finite"):
        broken = dataclasses.replace(pair, params=broken)
        trace_prompt(
            broken, toy_traces.EVIL, toy_traces.settings()[:1], max_new_tokens=toy_traces.ROOM
        )


# ---- flags ----

CONFIG = {"names": ["spec"], "alphas": [], "knobs": "{}", "fields": {}}


def chosen(**changes):
    config = tiny_pair.get_config()
    return flags.settings(config, *{**CONFIG, **changes}.values())


def knobs(**changes):
    return [dict(setting.knobs) for setting in chosen(**changes)]


def test_alphas_go_to_the_rules_that_take_one():
    names = ["spec", "token_v3", "opt"]
    assert knobs(names=names, alphas=["0.5"]) == [{}, {"alpha": 0.5}, {"alpha": 0.5}]
    assert knobs(names=names, alphas=["0.1", "-2"]) == [{}, {"alpha": 0.1}, {"alpha": -2}]


def test_without_alpha_a_rule_takes_the_middle_of_the_sweep():
    assert knobs(names=["token_v3"]) == [{"alpha": 0.2}]  # of 0.2 and 0.8


def test_knobs_go_to_the_rules_that_have_them_and_the_rest_to_all():
    names = ["spec", "topk_relaxed"]
    found = chosen(names=names, alphas=["0.5"], knobs='{"k": 3, "expert_top_p": 0.9}')
    assert [dict(setting.knobs) for setting in found] == [{}, {"alpha": 0.5, "k": 3}]
    assert [dict(setting.expert_truncation) for setting in found] == [{"top_p": 0.9}] * 2
    assert all(setting.draft_length == 5 for setting in found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": None}, "the prompt is empty"),
        ({"names": []}, "no rule was given"),
        ({"names": ["nonsense"]}, "rule 'nonsense' is unknown; choose one of"),
        ({"names": ["opt"]}, "rule opt needs alpha"),
        ({"names": ["lossy"], "alphas": ["1"]}, "outside its domain"),
        ({"names": ["opt"], "alphas": ["nan"]}, "alpha=nan must be a finite number"),
        ({"names": ["opt"], "alphas": ["x"]}, "--alpha=x must be a number"),
        ({"names": ["opt"], "alphas": ["1", "2"]}, "--alpha has 2 values and 1 of the rules"),
        ({"alphas": ["1"]}, "none of the rules takes one"),
        ({"knobs": "[1]"}, "must be a JSON object"),
        ({"knobs": '{"tmperature": 1}'}, "tmperature unknown here"),
        ({"fields": {"draft_length": 0}}, "draft_length=0 must be at least 1"),
        ({"fields": {"verifier": "best"}}, "verifier 'best' is unknown"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 must be at least 1"),
        ({"html": "/nowhere/page.html"}, "--html=/nowhere/page.html must be a file in a folder"),
        ({"html": "/"}, "--html=/ must be a file"),
    ],
)
def test_bad_flags_are_one_line_before_anything_is_loaded(changes, message, monkeypatch):
    monkeypatch.setattr(pairs, "load", lambda _: pytest.fail("loaded"))
    given = {"prompt": "1", **CONFIG, "max_new_tokens": 6, "html": None, **changes}
    with pytest.raises(UserError, match=message) as caught:
        flags.from_flags(tiny_pair.get_config("nowhere"), **given)
    assert "\n" not in str(caught.value)


def test_a_prompt_without_room_says_so():
    with pytest.raises(UserError, match="the prompt has .* tokens and the pair a context of 300"):
        trace_prompt(toy_traces.pair(), "1" * 400, toy_traces.settings()[:1])


def test_a_prompt_that_was_cut_says_so():
    text = "1" * 400 + "="
    how = {"settings": toy_traces.settings()[:1], "max_new_tokens": toy_traces.ROOM}
    # Of the comparison's shapes: a prompt in 48 tokens.
    pair = dataclasses.replace(toy_traces.pair(), context_length=48 + toy_traces.ROOM)
    found = trace_prompt(pair, Prompt(text, 0, 400), **how)
    ids = len(pair.tokenizer.encode(text, bos=True))
    assert found.prompt_cut > 0 and found.prompt_cut < ids
    assert f"; the prompt was cut by {found.prompt_cut} tokens" in display.common(found)
    whole = trace_prompt(pair, toy_traces.EVIL, **how)
    assert whole.prompt_cut == 0 and "cut" not in display.common(whole)


def test_a_config_may_lack_a_task(tmp_path):
    pairs.export(toy_traces.pair(), str(tmp_path), {})
    config = tiny_pair.get_config(str(tmp_path))
    del config.task
    fields, prompt = {"draft_length": 3}, "1 + 1 = " * 6  # of the comparison's shapes
    given = {**CONFIG, "fields": fields, "max_new_tokens": toy_traces.ROOM, "html": None}
    assert flags.from_flags(config, prompt=prompt, **given).prompt == prompt
    with_task = tiny_pair.get_config(str(tmp_path))
    assert flags.from_flags(with_task, prompt=prompt, **given).prompt == prompt + "\n"
