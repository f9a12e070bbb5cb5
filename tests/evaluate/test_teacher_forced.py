"""Teacher-forced figures against formulas by hand and against decoding."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import models, pairs
from speccascade.evaluate import teacher_forced
from speccascade.evaluate.jobs import TEACHER_FORCED, Job
from speccascade.evaluate.quality import Prompts
from speccascade.evaluate.reference_rows import BUDGETS
from speccascade.inference.engine import Engine
from speccascade.inference.methods import ORACLE
from speccascade.inference.reading import setting
from speccascade.inference.setting import Setting
from speccascade.sampling import confidence
from speccascade.sharding import Layout, make_mesh
from tests import random_params, tiny_pair, toy_head
from tests.jitted import forward

PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
ANSWERS = [[20, 21, 22], [], [23]]


def prepared(pair, prompts=PROMPTS, answers=ANSWERS):
    engine = Engine.build(pair, prompts, max_new_tokens=6)
    requests = [engine.request(prompt, i, "it") for i, prompt in enumerate(prompts)]
    return engine, {"test": Prompts([None] * len(prompts), requests, answers)}


def measure(pair, *settings, batch_size=2, **given):
    engine, prompts = prepared(pair, **given)
    count = len(prompts["test"].answers)
    jobs = [Job(TEACHER_FORCED, s, "test", count) for s in settings]
    found = dict(teacher_forced.run(engine, prompts, jobs, batch_size))
    return [found[job] for job in jobs]


def rule(**entry):
    made = setting({"draft_length": 1, **entry})
    return Setting(
        made.method,
        made.rule,
        made.knobs,
        temperature=made.temperature,
        expert_truncation=made.expert_truncation,
    )


@pytest.fixture(scope="module")
def pair():
    return tiny_pair.in_float32(tiny_pair.make())


softmax = jax.jit(confidence)


def distributions(pair, role):
    """Both answers' positions, one after the other, each scored by itself: [4, V]."""
    model, rows = pair.models[role], []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        for i in range(len(answer)):
            tokens = prompt + answer[:i]
            padded = np.array([tokens + [0] * (8 - len(tokens))])  # one shape for all
            logits = forward(model, pair.params[role], padded, np.array([len(prompt)]))
            rows.append(np.asarray(logits)[0, len(tokens) - 1])
    return np.asarray(softmax(np.stack(rows)), np.float64)


def test_rules_on_references_are_what_their_formulas_say(pair):
    q, p = distributions(pair, "drafter"), distributions(pair, "expert")
    ids = np.concatenate([np.array(a, int) for a in ANSWERS])
    at, tops = np.arange(4), p.max(-1, keepdims=True)
    chow, token, top_p, spec = measure(
        pair,
        rule(rule="chow", alpha=0.7, temperature=1.0),
        rule(rule="token_v3", alpha=0.6, temperature=1.0),
        rule(rule="spec", temperature=1.0, expert_top_k=1),
        rule(rule="spec", temperature=0.0),
    )
    defers = q.max(-1) < 0.3
    expected = np.where(defers, p[at, ids], q[at, ids])
    assert chow["positions"] == 4 and chow["lengths"] == [3, 0, 1]
    assert chow["quality"] == pytest.approx(expected.mean(), abs=1e-5)
    assert chow["deferral_rate"] == pytest.approx(defers.mean())
    np.testing.assert_allclose(
        chow["reference_sums"], [expected[:3].sum(), 0, expected[3]], atol=1e-5
    )

    bad = p < 0.4 * tops
    mass = (q * bad).sum(-1)
    pi = q * ~bad + p * mass[:, None]
    assert token["quality"] == pytest.approx(pi[at, ids].mean(), abs=1e-5)
    assert token["deferral_rate"] == pytest.approx(mass.mean(), abs=1e-5)
    assert token["rejection_rate"] == pytest.approx(np.maximum(pi - q, 0).sum(-1).mean(), abs=1e-5)
    np.testing.assert_allclose(token["deferral_sums"], [mass[:3].sum(), 0, mass[3]], atol=1e-5)

    greedy = (p.argmax(-1) == ids).mean()  # keeping one token is greedy decoding
    assert top_p["quality"] == pytest.approx(greedy) and spec["quality"] == pytest.approx(greedy)
    assert spec["deferral_rate"] is None and spec["deferral_sums"] is None


def test_the_oracles_ends_are_the_two_models(pair):
    q, p = distributions(pair, "drafter"), distributions(pair, "expert")
    ids = np.concatenate([np.array(a, int) for a in ANSWERS])
    [row] = measure(pair, Setting(ORACLE, temperature=1.0))
    assert row["deferral_rate"] == list(BUDGETS)
    assert row["quality"][0] == pytest.approx(q[np.arange(4), ids].mean(), abs=1e-5)
    assert row["quality"][-1] == pytest.approx(p[np.arange(4), ids].mean(), abs=1e-5)
    best = np.maximum(q, p)[np.arange(4), ids].mean()
    assert max(row["quality"]) == pytest.approx(best, abs=1e-5)
    assert len(row["reference_sums"]) == len(BUDGETS) == len(row["quality_ci"])


def t5_pair(pair):
    """The same pair with encoder-decoders in place of its models."""
    shape = {"family": "encoder_decoder", "num_heads": 2, "head_dim": 4}
    shape |= {"num_layers": 1, "num_decoder_layers": 1}
    built, params = {}, {}
    for i, role in enumerate(pairs.ROLES):
        built[role] = models.build(
            {
                **shape,
                "d_model": tiny_pair.WIDTHS[role],
                "d_ff": 16,
                "dtype": "float32",
                "vocab_size": pair.tokenizer.vocab_size,
            }
        )
        params[role] = random_params.of(built[role], seed=i)
    return dataclasses.replace(pair, models=built, params=params)


@partial(jax.jit, static_argnums=0)
def while_decoding(model, params, prompt, length, answer):
    """What a model that decodes says of each token of the answer, the ones before it given."""
    size = answer.shape[1]
    cache = model.init_cache(1, prompt.shape[1] + size + 4)
    read = model.prefill(params, prompt, length, cache)
    fed = jnp.concatenate([read.last[:, None], answer[:, :-1]], axis=1)
    logits, _ = model.apply(params, fed, read.position[:, None] + jnp.arange(size), read.cache)
    return jnp.take_along_axis(confidence(logits), answer[..., None], axis=-1)[0, :, 0]


@pytest.mark.parametrize("family", ["decoder_only", "encoder_decoder"])
def test_references_are_scored_as_decoding_would(pair, family):
    chosen = pair if family == "decoder_only" else t5_pair(pair)
    [row] = measure(chosen, Setting(ORACLE, temperature=1.0))
    ends = zip(
        ("drafter", "expert"), (row["reference_sums"][0], row["reference_sums"][-1]), strict=True
    )
    for role, sums in ends:
        model = chosen.models[role]
        expected = []
        for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
            # One shape for all; what fills it up comes after what is read.
            tokens, ids = (np.array([x + [0] * (4 - len(x))]) for x in (prompt, answer))
            length = np.array([len(prompt)])
            said = while_decoding(model, chosen.params[role], tokens, length, ids)
            expected.append(np.asarray(said)[: len(answer)].sum())
        np.testing.assert_allclose(sums, expected, atol=1e-5)


def test_without_references_there_are_no_figures(pair):
    for row in measure(pair, Setting(ORACLE), rule(rule="chow", alpha=0.1), answers=[[], [], []]):
        assert row["positions"] == 0 and row["quality"] is None


def test_references_end_with_the_context(pair):
    engine, prompts = prepared(pair, answers=[[20] * 400, [21], [22, 23]])
    found = teacher_forced.answered(engine, prompts["test"].requests, prompts["test"].answers)
    assert found.length.tolist() == [297, 1, 2]
    assert found.prompt[1, :3].tolist() == [8, 9, 0] and found.ids[1, :2].tolist() == [21, 0]


def test_logits_that_are_not_finite_fail_every_setting_that_met_them(pair):
    broken = {**pair.params, "expert": jax.tree.map(lambda x: x * np.nan, pair.params["expert"])}
    found = measure(
        dataclasses.replace(pair, params=broken), Setting(ORACLE), rule(rule="chow", alpha=0.1)
    )
    # The example without an answer has met nothing.
    assert all(line.startswith("2 of 3 examples met logits that were not finite") for line in found)


def test_a_sharded_pair_has_the_same_figures(tmp_path, pair):
    pairs.export(pair, tmp_path, {})
    layout = Layout(make_mesh({"data": 2, "model": 2}, jax.devices()[:4]))
    settings = [
        Setting(ORACLE, temperature=1.0),
        rule(rule="token_v3", alpha=0.6, temperature=1.0),
        rule(rule="lossy", alpha=0.3, temperature=1.0, expert_top_p=0.9),
        rule(rule="opt", alpha=0.3),
        rule(rule="learned", alpha=0.1, head=toy_head.PATH, temperature=1.0),
        rule(rule="learned", alpha=0.4, head=toy_head.PATH, temperature=1.0),
    ]
    whole = measure(pairs.load(str(tmp_path)), *settings)
    sharded = measure(pairs.load(str(tmp_path), layout), *settings)
    for one, other in zip(whole, sharded, strict=True):
        for name in one:
            if isinstance(one[name], (int, type(None))):
                assert other[name] == one[name]
            else:
                np.testing.assert_allclose(other[name], one[name], atol=2e-5)
