"""The comparison with `transformers`: that it is of the same models, drafts and texts."""

import dataclasses
import functools
import importlib.util

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from speccascade import decode, models, pairs
from speccascade.benchmark import benchmarking, comparison, decoding, peer, synthetic
from speccascade.benchmark.as_hugging_face import config_of, tensors_of
from speccascade.benchmark.clock import Measured
from speccascade.benchmark.subject import case, load
from speccascade.errors import UserError
from speccascade.inference.reading import setting
from speccascade.inference.sweep import product
from tests import tiny_pair
from tests.importing import decoder_only_families as families
from tests.importing import planned
from tests.smallest_model import MODEL


@functools.cache
def family(name):
    """Returns the stored config.json of a family, its model and parameters."""
    config = families.golden()[0][name]
    return config, *planned.imported(config, families.tensor)


@pytest.fixture
def hugging_face():
    """The module that imports torch."""
    reason = "needs torch and transformers (requirements-peers.txt)"
    pytest.importorskip("torch", reason=reason)
    pytest.importorskip("transformers", reason=reason)
    from speccascade.benchmark import hugging_face

    return hugging_face


# ---- models ----


@pytest.mark.parametrize("name", families.FAMILIES)
def test_a_model_goes_back_to_the_checkpoint_it_came_from(name):
    config, model, params = family(name)
    found, plan = config_of(model)
    # A Mistral none of whose layers slides is a Llama.
    same = {"mistral_v3": ["LlamaForCausalLM"]}.get(name, config["architectures"])
    assert found["architectures"] == same
    tensors = tensors_of(params, plan)
    assert len(tensors) == sum(len(weight.names(())) for weight in plan.weights.values())
    for key, tensor in tensors.items():
        np.testing.assert_allclose(tensor, families.tensor(key, tensor.shape), atol=1e-6)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_transformers_computes_the_same_logits(name, hugging_face):
    import torch

    _, model, params = family(name)
    made = hugging_face.built(model, params)
    tokens = families.tokens(2)
    with torch.no_grad():
        found = made(torch.from_numpy(tokens).long(), use_cache=False).logits.numpy()
    expected = jax.jit(model.forward)(params, tokens, jnp.ones(2, jnp.int32))
    np.testing.assert_allclose(found, expected, atol=2e-4)
    ours = params["attention_0"]["query"]["weight"].unsafe_buffer_pointer()
    assert made.model.layers[0].self_attn.q_proj.weight.data_ptr() == ours  # nothing was copied


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tie_embeddings": False, "head_size": 20}, "head over 20 tokens"),
        ({"attn_softcap": 2.0}, "no architecture of transformers"),
    ],
)
def test_what_transformers_has_not_is_one_line(change, words):
    with pytest.raises(UserError) as error:
        config_of(models.build({**MODEL, **change}))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_no_encoder_decoder():
    sizes = {"vocab_size": 37, "d_model": 8, "num_heads": 2, "head_dim": 4}
    layers = {"num_layers": 1, "num_decoder_layers": 1}
    with pytest.raises(UserError, match="decoder-only"):
        config_of(models.build({"family": "encoder_decoder", **sizes, **layers, "d_ff": 8}))


def test_the_other_library_is_steered_to_the_same_tokens():
    rng = np.random.default_rng(0)
    tokens, positions = rng.integers(2**15, size=(2, 1, 200))
    for agreement in (0.0, 0.3, 1.0):
        steered = jnp.zeros((1, 200, 101))
        steered = np.array(synthetic.steer(steered, tokens, positions, jnp.float32(agreement)))
        for i in range(200):
            choice, weight = synthetic.next_token(
                int(tokens[0, i]), int(positions[0, i]), agreement, 101
            )
            assert steered[0, i, choice] == np.float32(weight)
            steered[0, i, choice] = 0
        assert not steered.any()


# ---- methods ----


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"method": "autoregressive_expert"}, peer.Method()),
        ({"rule": "spec", "draft_length": 3}, peer.Method("drafter", 3)),
        ({"rule": "spec", "draft_length": 3, "verifier": "block"}, peer.Method("drafter", 3)),
        (
            {"rule": "spec", "draft_length": 5, "drafter": "lookup", "max_ngram": 2},
            peer.Method("lookup", 5, 2),
        ),
        ({"rule": "spec", "draft_length": 5, "drafter": "lookup", "min_ngram": 2}, None),
        ({"rule": "spec", "draft_length": 5, "drafter": "lookup", "otherwise": "drafter"}, None),
        ({"rule": "chow", "alpha": 0.3, "draft_length": 3}, None),
    ],
)
def test_what_has_a_counterpart(given, expected):
    assert peer.counterpart(setting(given)) == expected


def test_ratio_is_of_paired_runs():
    # Tokens per second of ours: 10 and 20, then 5; of theirs: 5 and 10, then 10.
    ours = comparison.Found([Measured((0.4, 0.2), [1] * 4), Measured((1.0, 1.0), [1] * 5)])
    theirs = comparison.Found([Measured((0.8, 0.4), [1] * 4), Measured((0.5, 0.5), [1] * 5)])
    middle, low, high = comparison.ratio(ours, theirs)
    assert (middle, low, high) == (1.25, 0.5, 2.0)
    assert ours.tokens_per_second == pytest.approx(9 / 1.3)


# ---- the whole ----


def synthetic_config(**changes):
    config = ml_collections.ConfigDict()
    config.synthetic = {"prompt_length": 3, "drafter": dict(MODEL), "expert": dict(MODEL)}
    config.benchmark = {
        "settings": product(rule="chow", alpha=0.3, draft_length=2, agreement=0.5)
        + product(rule="spec", draft_length=2, agreement=0.5)
        + product(rule="spec", draft_length=2, agreement=0.5, drafter="lookup"),
        "batch_sizes": (4,),
        "num_examples": 2,
        "max_new_tokens": 24,
        "step_tokens": (1,),
        "step_repeats": 1,
        "trials": 2,
        "minutes": 10,
    }
    config.benchmark.update(changes)
    return config


def rows(said):
    """Returns the cells of the one table."""
    lines = [line for text in said for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_a_synthetic_pair_beside_transformers(hugging_face):
    said = []
    benchmarking.run(synthetic_config(), said.append, peer="transformers")
    found = rows(said)
    assert [row[0] for row in found] == [
        "autoregressive_expert",
        "spec N=2 token agreement=0.5",
        "spec over lookup N=2 max_ngram=3 min_ngram=1 token agreement=0.5",
        "chow alpha=0.3 N=2 token agreement=0.5",
    ]
    for row, how in zip(found, ("greedy", "assisted N=2", "prompt lookup N=2"), strict=False):
        assert f"({how})" in row[2] and row[4] == "100%"
    assert "its best" in found[3][2]
    assert hugging_face.VERSIONS in "\n".join(said)


def test_both_pass_the_expert_as_often(hugging_face):
    # The same drafts, kept to the same place: assisted generation is the same algorithm greedily.
    config = synthetic_config(num_examples=3)
    subject = load(config, 3)
    other = hugging_face.HuggingFace(subject.models, subject.params, subject.stop_table)
    passes = []
    other.models["expert"].register_forward_hook(lambda *_: passes.append(1))
    for agreement in (0.0, 0.6, 1.0):
        given = {"rule": "spec", "draft_length": 3, "agreement": agreement}
        for ready, request in zip(
            decoding.prepare(subject, case(given, True, {}), 1, 3), subject.requests, strict=True
        ):
            call = ready.timed(24)
            call.warm()
            counts = call.keep(call.run(call.prepare()))
            passes.clear()
            other.decode(request.prompt, 24, peer.Method("drafter", 3), agreement)
            assert len(passes) == counts["expert_calls"][0]


def same_answers(subject, hugging_face, given, agreement=None):
    """Asserts that both write the same answers by speculative decoding, and returns them."""
    other = hugging_face.HuggingFace(subject.models, subject.params, subject.stop_table)
    calls = decoding.prepare_with_prompts(
        subject, case(given, agreement is not None, {}), len(subject.requests)
    )
    answers = []
    for request, at in zip(subject.requests, calls, strict=True):
        call = at(request.max_new_tokens)
        (ours,) = call.keep(call.run(None))
        found = other.decode(
            request.prompt, request.max_new_tokens, peer.Method("drafter", 3), agreement
        )
        assert found == ours
        answers.append(ours)
    return answers


def test_a_pair_of_one_tokenizer_answers_the_same(hugging_face, tmp_path):
    pairs.export(tiny_pair.make(), str(tmp_path), {})
    config = tiny_pair.get_config(str(tmp_path))
    config.benchmark = synthetic_config(max_new_tokens=12).benchmark
    same_answers(load(config, 4), hugging_face, {"rule": "spec", "draft_length": 3})


@pytest.mark.parametrize("by", ["eos", "string"])
def test_answers_end_where_ours_do(by, hugging_face):
    given = {"rule": "spec", "draft_length": 3, "agreement": 0.6}
    subject = load(synthetic_config(), 2)
    first = same_answers(subject, hugging_face, given, 0.6)[0]
    at = next(i for i in range(8, 20) if first.index(first[i]) == i)  # new, in the middle
    if by == "eos":
        table = decode.stop_table(37, [first[at]])
    else:
        letters = [chr(65 + token) for token in range(37)]
        ends = letters[first[at - 1]] + letters[first[at]]
        table = decode.stop_table(37, (), [ends], lambda token: letters[token].encode())
    ending = dataclasses.replace(subject, stop_table=table)
    assert same_answers(ending, hugging_face, given, 0.6)[0] == first[: at + 1]


# ---- refusals ----


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({}, {"peer": "vllm"}, "--peer=vllm"),
        ({}, {"peer": "transformers", "profile": "trace"}, "--profile"),
    ],
)
def test_bad_flags_are_one_line(changes, options, words):
    with pytest.raises(UserError) as error:
        benchmarking.run(synthetic_config(**changes), lambda text: None, **options)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"temperature": 1.0}, "greedy"), ({"expert_top_k": 3}, "without limits")],
)
def test_only_plain_greedy_decoding_is_compared(fields, words, hugging_face):
    settings = product(rule="spec", draft_length=2, agreement=1.0, **fields)
    with pytest.raises(UserError, match=words):
        config = synthetic_config(settings=settings)
        benchmarking.run(config, lambda text: None, peer="transformers")


def test_missing_packages_are_named_with_their_command():
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        pytest.skip("torch and transformers are there")
    with pytest.raises(UserError, match="pip install -r requirements-peers.txt") as error:
        benchmarking.run(synthetic_config(), lambda text: None, peer="transformers")
    assert "\n" not in str(error.value)
