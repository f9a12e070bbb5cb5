"""Fine-tuning of a published checkpoint by its name, and of rows that pad its embedding."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import importing, models, pairs
from speccascade.errors import UserError
from speccascade.inference.api import generate_text
from speccascade.training import given, loop, losses
from speccascade.training.data import Problems
from speccascade.training.objective import Fixed, Objective, evaluate
from speccascade.workdir import checkpoints
from tests.training import fine_tuning
from tests.training.fine_tuning import KNOWN, ROWS

OTHERS = [name for name in losses.DISTILLATION if name != "forward_kl"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return fine_tuning.checkpoint(tmp_path_factory.mktemp("published") / "t5")


@pytest.fixture(scope="module")
def tuned(source, tmp_path_factory):
    """The workdir of a fine-tuning."""
    folder = tmp_path_factory.mktemp("tuned")
    loop.train(fine_tuning.config(folder, source), str(folder / "run"))
    return str(folder / "run")


def problems():
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, KNOWN, (5, 9)).astype(np.int32)
    return Problems(tokens, np.array([4, 3, 5, 1, 2]), np.array([9, 8, 9, 5, 7]))


def test_a_checkpoint_is_fine_tuned_by_its_name(source, tuned):
    before, (model, params, tokenizer) = given.load(source), checkpoints.load_model(tuned)
    assert models.describe(model) == models.describe(before.model)
    assert model.config.gated_mlp and not model.config.tie_embeddings
    assert model.vocab_size == ROWS and tokenizer.vocab_size == KNOWN == before.tokenizer.vocab_size
    for old, new in (
        (before.params["embedding"], params["embedding"]),
        (before.params["head"]["weight"], params["head"]["weight"]),
    ):
        old, new = np.asarray(old), np.asarray(new)
        np.testing.assert_array_equal(old[KNOWN:], new[KNOWN:])
        assert not np.array_equal(old[:KNOWN], new[:KNOWN])
    assert not (json.loads(open(f"{tuned}/config.json").read()).keys() & {"model", "tokenizer"})


@pytest.mark.slow
def test_it_drafts_and_checks_in_a_pair_and_is_exported(source, tuned, tmp_path):
    how = {"max_new_tokens": 4}
    prompts = ["summarize: train 3", "summarize: b"]
    for both in ({"drafter": tuned, "expert": source}, {"drafter": source, "expert": tuned}):
        pair = pairs.load(both)
        assert {m.vocab_size for m in pair.models.values()} == {KNOWN}
        drafted = generate_text(pair, prompts, rule="spec", draft_length=2, **how)
        greedy = generate_text(pair, prompts, method="autoregressive_expert", **how)
        assert [a.tokens for a in drafted] == [a.tokens for a in greedy]
    pairs.export_workdirs({"drafter": tuned, "expert": tuned}, str(tmp_path / "pair"), "tiny")
    exported = pairs.load(str(tmp_path / "pair"))
    assert exported.expert.vocab_size == KNOWN
    again = generate_text(exported, prompts, method="autoregressive_expert", **how)
    plain = pairs.load({"expert": tuned})
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), plain.params)
    plain = dataclasses.replace(plain, params=rounded)  # as an export keeps them
    expected = generate_text(plain, prompts, method="autoregressive_expert", **how)
    assert [a.tokens for a in again] == [a.tokens for a in expected]


def loud(params):
    """The padding's rows so large that one of them would be chosen everywhere."""
    head = np.array(params["head"]["weight"])
    head[KNOWN:] = np.resize([50.0, -50.0], (ROWS - KNOWN, 1))
    return {**params, "head": {"weight": head}}


def test_padding_gets_neither_probability_nor_loss(source):
    found = given.load(source)
    model, quiet, noisy = found.model, found.params, loud(found.params)
    objective, held = Objective(model, KNOWN), problems()
    batch = objective.batch(held, np.arange(5))

    @jax.jit
    def loss(params):
        mean = jax.value_and_grad(objective, has_aux=True)
        totals = objective.totals(batch)
        (value, _), grads = mean(params, batch, totals, None, jax.random.key(0))
        return value, grads

    (expected, grads), (value, noisy_grads) = jax.device_get((loss(quiet), loss(noisy)))
    # By hand, over the tokenizer's ids alone.
    given_ = batch["prompt"], batch["prompt_length"], batch["answer"]
    answer_logits = jax.jit(model.answer_logits)
    logits = np.asarray(answer_logits(quiet, *given_))[..., :KNOWN]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_probs, batch["answer"][..., None], -1)[..., 0]
    inside = np.arange(chosen.shape[1]) < batch["answer_length"][:, None]
    np.testing.assert_allclose(expected, -chosen[inside].mean(), rtol=1e-5)
    assert value == expected
    for one in (grads, noisy_grads):
        assert not one["head"]["weight"][KNOWN:].any() and not one["embedding"][KNOWN:].any()
        assert one["head"]["weight"][:KNOWN].any()
    figures = evaluate(model, quiet, held, 3, KNOWN)
    assert evaluate(model, noisy, held, 3, KNOWN) == figures
    noise = np.asarray(answer_logits(noisy, *given_))
    assert (noise.argmax(-1) >= KNOWN).mean() > 0.5  # where it is not left out


@pytest.mark.parametrize(
    "distance",
    ["forward_kl", *(pytest.param(d, marks=pytest.mark.slow) for d in OTHERS)],
)
def test_a_padded_teacher_and_pupils_of_other_widths(source, distance):
    teacher = given.load(source)
    batch = Objective(teacher.model, KNOWN).batch(problems(), np.arange(5))
    own, found = jax.device_get(teacher.params), []
    for rows in (KNOWN, ROWS + 8):
        model = models.build({**models.describe(teacher.model), "vocab_size": rows})
        pad = ((0, rows - KNOWN), (0, 0))
        params = jax.tree.map(lambda x: 1.1 * x, own)
        params["embedding"] = np.pad(params["embedding"][:KNOWN], pad)
        params["head"] = {"weight": np.pad(params["head"]["weight"][:KNOWN], pad, "edge")}
        how = {"teacher": teacher.model, "distance": distance, "distill_weight": 0.7}
        objective = Objective(model, KNOWN, **how)

        @jax.jit
        def both(params, fixed, objective=objective):
            mean = jax.value_and_grad(objective, has_aux=True)
            return mean(params, batch, objective.totals(batch), fixed, jax.random.key(0))

        (_, logged), grads = jax.device_get(both(params, Fixed(loud(own))))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
        assert not grads["head"]["weight"][KNOWN:].any()
        found.append([logged["loss"], logged["distill"]])
    np.testing.assert_allclose(*found, rtol=1e-5)
    assert found[0][1] > 1e-4


@pytest.mark.slow
def test_a_drafter_learns_from_a_published_padded_teacher(source, tmp_path):
    config = fine_tuning.config(tmp_path, "", distill_from=source, distill_weight=1.0)
    config.train.update(num_steps=8, checkpoint_every=8, eval_every=8)
    config.model = {
        "family": "encoder_decoder",
        **{"d_model": 8, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2},
        **{"head_dim": 4, "d_ff": 8},
    }
    loop.train(config, str(tmp_path / "drafter"))
    pair = pairs.load({"drafter": str(tmp_path / "drafter"), "expert": source})
    assert {m.vocab_size for m in pair.models.values()} == {KNOWN}


def test_a_section_may_say_how_it_computes_and_no_other_form(source, tmp_path):
    begun = given.load(source)
    model = given.form({"dtype": "bfloat16"}, 0, begun)
    assert (model.config.dtype, model.config.param_dtype) == ("bfloat16", "float32")
    assert given.form({"family": "encoder_decoder", "d_ff": 24}, 0, begun).config.d_ff == 24
    for section, message in (
        ({"d_ff": 8}, r"is another model: d_ff \(24 there, 8 here\); leave out config.model"),
        ({"family": "decoder_only"}, "is another model: family"),
        ({"weight_dtype": "int8"}, "is another model: weight_dtype"),
        ({"width": 3}, "config.model has unknown fields width"),
    ):
        config = fine_tuning.config(tmp_path, source)
        config.model = section
        with pytest.raises(UserError, match=message):
            loop.train(config, str(tmp_path / "run"))
        assert not (tmp_path / "run").exists()


def test_what_cannot_be_trained_is_told_before_anything_is_written(source, tmp_path):
    rounded = importing.import_checkpoint(source, str(tmp_path / "int8"), weights="int8").out
    plain = {"family": "encoder_decoder", "d_model": 8, "num_layers": 1, "num_decoder_layers": 1}
    plain |= {"num_heads": 2, "head_dim": 4, "d_ff": 8}
    for section, train, message in (
        (None, {"init_from": rounded}, "int8 weights cannot be trained"),
        ({**plain, "head_size": 9}, {"init_from": ""}, "the config lacks tokenizer"),
        (None, {"init_from": ""}, "the config lacks model"),
        (None, {"prompt_weight": 0.2}, "set train.prompt_weight to 0"),
        (plain, {"init_from": "", "distill_from": source}, None),
        ({**plain, "head_size": 9}, {"init_from": "", "distill_from": source}, "head over 9 token"),
    ):
        config = fine_tuning.config(tmp_path, source, **train)
        if section is not None:
            config.model = section
        if message is None:
            given.form(section, KNOWN, None)
            continue
        with pytest.raises(UserError, match=message):
            loop.train(config, str(tmp_path / "run"))
        assert not (tmp_path / "run").exists()
