"""Decoding on a mesh: the tokens of one device, for every rule, and nothing large in between.

The batch of `toys.mixed_rows` holds every rule, temperature, truncation and length at once.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from speccascade import models
from speccascade import rules as rules_lib
from speccascade.decode import (
    CascadeDrafter,
    LookupDrafter,
    ModelDrafter,
    generate,
    loop,
    make_rows,
    placing,
)
from speccascade.decode import decide as decide_lib
from speccascade.decode.step import Decoder
from speccascade.sharding import REPLICATED, Layout, active, hlo, make_mesh
from tests import random_params
from tests.decode import toys


def layout(data: int, model: int, **rules) -> Layout:
    devices = jax.devices()[: data * model]
    return Layout(make_mesh({"data": data, "model": model}, devices), **rules)


def on(decoder: Decoder, where: Layout, params) -> tuple[Decoder, dict]:
    """Returns a decoder and its parameters laid out."""
    decoder = dataclasses.replace(decoder, layout=where)
    return decoder, jax.device_put(params, placing.param_shardings(decoder))


def check_same(found, expected):
    """Raises AssertionError unless two outputs have the same tokens and nearly the same numbers."""
    assert toys.texts(found) == toys.texts(expected)
    for name in ("finished", "invalid"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    own = np.arange(found.tokens.shape[1]) < np.asarray(found.num_tokens)[:, None]
    for name in ("logprob", "expert_logprob"):
        a, b = (np.where(own, np.asarray(getattr(x, name)), 0.0) for x in (found, expected))
        np.testing.assert_allclose(a, b, atol=2e-4, err_msg=name)
    for name, b in expected.stats.by_name().items():
        a = found.stats.by_name()[name]
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=name)


# ---- the tokens of one device ----

CASES = [
    # Four heads and two key-value heads, one of each on every device: the latter are repeated.
    ("decoder_only", "token", (2, 4), {}),
    # Four heads do not divide over eight devices, and the drafter is whole on each.
    pytest.param("decoder_only", "block", (1, 8), {"drafter": REPLICATED}, marks=pytest.mark.slow),
    # Three heads do, over three: 32 token ids do not.
    pytest.param("encoder_decoder", "block", (2, 3), {}, marks=pytest.mark.slow),
    pytest.param("encoder_decoder", "token", (8, 1), {}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("family", "verifier", "sizes", "options"), CASES)
def test_every_rule_decodes_as_on_one_device(family, verifier, sizes, options):
    pair = toys.PAIRS[family]
    decoder, made, rows = pair.decoder(verifier), toys.all_rules(), toys.mixed_rows()
    expected = generate(decoder, pair.params, made, rows)
    assert np.asarray(expected.num_tokens).max() == toys.ROOM
    sharded, params = on(decoder, layout(*sizes, **options), pair.params)
    check_same(generate(sharded, params, made, rows), expected)


def test_lookups_decode_as_on_one_device():
    pair, made = toys.PAIRS["decoder_only"], (rules_lib.make("token_v3", alpha=0.3),)
    decoder = Decoder(pair.expert, LookupDrafter(), toys.SIZE, toys.ROOM, "block", logprobs=True)
    rows, params = toys.mixed_rows(rule_index=0), {"drafter": (), "expert": pair.params["expert"]}
    expected = generate(decoder, params, made, rows)
    where = Layout(make_mesh({"data": 2, "fsdp": 2, "model": 2}))  # weights cut along D too
    sharded, params = on(decoder, where, params)
    check_same(generate(sharded, params, made, rows), expected)


@pytest.mark.slow
def test_three_models_decode_as_on_one_device():
    pair, made = toys.PAIRS["decoder_only"], (rules_lib.make("token_v3", alpha=0.3),)
    # Its three heads lie whole where the others' four lie on two devices each.
    small = toys.transformer(1, num_heads=3, num_kv_heads=3)
    drafter = CascadeDrafter(small, pair.drafter, 2)
    decoder = Decoder(pair.expert, drafter, toys.SIZE, toys.ROOM, "token", logprobs=True)
    middle = rules_lib.make("lossy", alpha=np.linspace(0.0, 0.9, toys.BATCH, dtype=np.float32))
    rows = toys.mixed_rows(rule_index=0)._replace(drafting=middle)
    both = {"drafter": random_params.scaled(small, 5, 3.0), "middle": pair.params["drafter"]}
    params = {"drafter": both, "expert": pair.params["expert"]}
    expected = generate(decoder, params, made, rows)
    sharded, params = on(decoder, layout(2, 2), params)
    heads = params["drafter"]["middle"]["attention_0"]["query"]["weight"].sharding.spec
    assert heads[0] == "model"
    assert params["drafter"]["drafter"]["attention_0"]["query"]["weight"].is_fully_replicated
    check_same(generate(sharded, params, made, rows), expected)


def test_rules_that_end_drafts_do_so_on_their_own_rows_of_three_models():
    vocab, room = 6, 8
    table, params = toys.Table(vocab), toys.tables(vocab, seed=1)
    both = {"drafter": params["drafter"], "middle": toys.tables(vocab, seed=2)["drafter"]}
    params = {"drafter": both, "expert": params["expert"]}
    decoder = Decoder(table, CascadeDrafter(table, table, 2), 2, room, "token", logprobs=True)
    rows = make_rows(
        [[1, 2], [3], [4, 5], [0]],
        stop_table=np.zeros((1, vocab), np.int32),
        max_new_tokens=room,
        prompt_slots=2,
        temperature=1.0,
        rule_index=[0, 1, 1, 0],
        drafting=rules_lib.make("spec"),
    )
    bild = rules_lib.make("bild", alpha=2.0, fallback=0.45)
    made = (rules_lib.make("token_v3", alpha=0.3), bild)
    expected = generate(decoder, params, made, rows)
    sharded = dataclasses.replace(decoder, layout=layout(2, 2))
    check_same(generate(sharded, params, made, rows), expected)


def test_a_batch_that_does_not_divide():
    vocab, room = 6, 8  # nor does the vocabulary, over four devices
    table, params = toys.Table(vocab), toys.tables(vocab, seed=1)
    decoder = Decoder(table, ModelDrafter(table), 2, room, "block", logprobs=True)
    rows = make_rows(
        [[1, 2], [3], [4, 5, 0]],
        stop_table=np.zeros((1, vocab), np.int32),
        max_new_tokens=room,
        prompt_slots=3,
        temperature=1.0,
    )
    rule = (rules_lib.make("lossy", alpha=0.3),)
    expected = generate(decoder, params, rule, rows)
    sharded = dataclasses.replace(decoder, layout=layout(2, 4))
    check_same(generate(sharded, params, rule, rows), expected)


# ---- what the compiled program exchanges ----

# No two axes have one size, here or on two by four devices. The drafter's axes are the expert's.
VOCAB, BATCH, SIZE, PROMPT, ROOM = 104, 18, 4, 23, 15
SLOTS = PROMPT + ROOM + SIZE + 1  # of a cache
KINDS = "token_v3", "lossy", "bild", "topk_relaxed"  # a rule of every kind


@functools.cache
def program(family: str, decoders: type[Decoder] = Decoder, rules: tuple[str, ...] = KINDS) -> str:
    """Returns the compiled loop of some rules over two by four devices, as text."""
    sizes = {"vocab_size": VOCAB, "d_model": 20, "num_heads": 8, "head_dim": 6, "d_ff": 28}
    if family == "decoder_only":
        expert, drafter = (toys.transformer(n, **sizes, tie_embeddings=n == 1) for n in (2, 1))
    else:
        expert, drafter = (toys.encoder_decoder(n, **sizes) for n in (2, 1))
    where = layout(2, 4)
    decoder = decoders(expert, ModelDrafter(drafter), SIZE, ROOM, "block", True, where)
    rows = make_rows(
        [[1] * PROMPT] * BATCH,
        stop_table=np.zeros((1, VOCAB), np.int32),
        max_new_tokens=ROOM,
        prompt_slots=PROMPT,
        drafter_truncation=toys.NO_TRUNCATION,
        expert_truncation=toys.NO_TRUNCATION,
    )
    made = tuple(rules_lib.make(name, alpha=0.3) for name in rules)
    shapes = {"drafter": models.shapes(drafter), "expert": models.shapes(expert)}

    def laid_out(tree, shardings):
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
        )

    params = laid_out(shapes, placing.param_shardings(decoder))
    rows = laid_out(rows, placing.rows_shardings(decoder, rows))
    state = jax.eval_shape(lambda p, r: loop.prefill(decoder, p, r), params, rows)
    state = laid_out(state, placing.state_shardings(decoder, state))
    return loop.run.lower(decoder, params, made, rows, state).compile().as_text()


def large(text: str, slots: int) -> list[hlo.Collective]:
    """Returns the collectives that carry an axis of a vocabulary, of a shard, or of a cache."""
    sizes = [VOCAB, VOCAB // 4, slots]
    return [c for c in hlo.collectives(text) if c.has_size(sizes)]


@pytest.mark.parametrize(
    ("family", "slots"), [("decoder_only", SLOTS), ("encoder_decoder", SLOTS - PROMPT + 1)]
)
def test_no_collective_carries_a_vocabulary_or_a_cache(family, slots):
    text = program(family)
    found = hlo.collectives(text)
    assert not large(text, slots) and not large(text, PROMPT)
    assert {c.kind for c in found} == {"all-reduce"} and all(c.in_loop for c in found)
    # The largest are the streams between layers, float32 [B / 2, N + 1, D].
    assert max(array.bytes for c in found for array in c.arrays) == BATCH // 2 * (SIZE + 1) * 20 * 4


@pytest.mark.parametrize(
    ("family", "slots"), [("decoder_only", SLOTS), ("encoder_decoder", SLOTS - PROMPT + 1)]
)
def test_caches_are_written_in_place(family, slots):
    heads = 1 if family == "decoder_only" else 2
    caches = [a.shape for a in hlo.aliased(program(family)) if len(a.shape) == 4]
    assert all((batch, k, h) == (BATCH // 2, heads, 6) for batch, k, _, h in caches)
    # Keys and values. Of the decoder-only model's three layers two see a window, and have a ring;
    # each layer of the other one has what it sees of the prompt as well.
    others = {"decoder_only": 2 * 2, "encoder_decoder": 2 * 3}[family]
    whole = [shape for shape in caches if shape[2] == slots]
    assert len(whole) == (2 if family == "decoder_only" else 2 * 3)
    assert len(caches) - len(whole) == others


def test_gathered_logits_would_be_seen(monkeypatch):
    def gathers(logits):
        return active.constrain(logits, "batch", None, None)

    monkeypatch.setattr(decide_lib, "pad_vocabulary", gathers)
    # Equal to no other decoder: what was traced before serves it not.
    text = program("decoder_only", type("Mutant", (Decoder,), {}), KINDS[:1])
    found = large(text, SLOTS)
    assert [c.kind for c in found] == ["all-gather"] and found[0].has_size([VOCAB])
