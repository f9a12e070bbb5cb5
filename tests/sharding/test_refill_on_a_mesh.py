"""Rows that are given the next prompt on a mesh: the texts of fixed batches."""

import dataclasses

import jax
import numpy as np
import pytest

import speccascade
from speccascade import pairs, rules
from speccascade.decode import (
    Decoder,
    LookupDrafter,
    LookupOrModelDrafter,
    ModelDrafter,
    generate,
    make_rows,
    placing,
    refill,
)
from speccascade.inference import stream
from speccascade.sharding import Layout, hlo, make_mesh
from tests import tiny_pair
from tests.decode import test_refill, toys
from tests.decode.test_refill import COUNT, ROOM, TABLE, VOCAB, assert_same, streamed
from tests.sharding.test_sharded_decoding import layout, on

# ---- which row is given what ----


def test_prompts_go_to_the_parts_in_turn_and_to_idle_rows_alone():
    idle = np.array([[True, False, True], [False, False, False], [False, True, True]])
    prompt, row = refill._places(idle, 2, 6)
    assert prompt.tolist() == [[0, 2], [-1, -1], [1, 3]]
    assert row.tolist() == [[0, 2], [3, 3], [1, 2]]
    prompt, row = refill._places(idle, 2, 1)
    assert prompt.tolist() == [[0, -1], [-1, -1], [-1, -1]] and row[0].tolist() == [0, 3]


# ---- texts ----


@pytest.mark.parametrize(
    ("joined", "parts"),
    [(True, 4), pytest.param(False, 4, marks=pytest.mark.slow), (False, 1)],
)
def test_tables_answer_as_in_a_batch(joined, parts):
    """A table's sums are of one row whatever the batch: two rows a part, and every order."""
    rng = np.random.default_rng(4)
    drafter = LookupOrModelDrafter(LookupDrafter(), TABLE) if joined else ModelDrafter(TABLE)
    params, made = toys.tables(VOCAB, seed=1), (rules.make("token_v3", alpha=np.full(COUNT, 0.3)),)
    rows = make_rows(
        [rng.integers(0, VOCAB, n).tolist() for n in rng.integers(1, 7, COUNT)],
        stop_table=np.where(np.arange(VOCAB) == 4, -1, 0)[None].astype(np.int32),
        max_new_tokens=rng.integers(0, ROOM + 1, COUNT),
        prompt_slots=6,
        temperature=rng.choice([0.0, 1.0], COUNT),
    )
    decoder = Decoder(TABLE, drafter, 2, ROOM)
    expected = generate(decoder, params, made, rows)
    sharded = dataclasses.replace(decoder, layout=layout(parts, 2))
    assert refill.parts_of(sharded) == parts and refill.parts_of(decoder) == 1
    for order in (None, rng.permutation(COUNT)):
        assert_same(streamed(sharded, params, made, rows, 8, order), expected)


@pytest.mark.slow
@pytest.mark.parametrize("family", list(toys.PAIRS))
def test_models_answer_as_in_a_batch_of_the_same_mesh(family):
    decoder, params, made, rows = test_refill.case.__wrapped__(toys.PAIRS[family])
    sharded, params = on(decoder, layout(2, 4), params)
    expected = generate(sharded, params, made, rows)
    assert_same(streamed(sharded, params, made, rows, 8), expected)


@pytest.mark.slow
def test_no_cache_leaves_its_part():
    decoder, params, made, rows = test_refill.case.__wrapped__(toys.PAIRS["decoder_only"])
    sharded, params = on(decoder, layout(2, 4), params)
    own, first = test_refill.taken(rows, made, range(8))
    placed = placing.place(sharded, own, first._replace(stop_table=rows.stop_table))
    batch = refill.begin(sharded, 8, params, placed, np.ones(8, bool))
    fresh = placed[0], placed[1]._replace(stop_table=())
    places = np.arange(8, dtype=np.int32) % 4
    program = refill.refill.lower(sharded, params, batch, fresh, places).compile().as_text()
    slots = batch.state.expert[0].keys_BKLH.shape[2], batch.state.expert[1].keys_BKLH.shape[2]
    found = hlo.collectives(program)
    assert found and not [c for c in found if c.has_size(slots)]
    assert {c.kind for c in found} == {"all-reduce"}


@pytest.mark.slow
def test_a_pair_on_a_mesh_answers_many_prompts_as_on_one_device(tmp_path):
    pairs.export(tiny_pair.make(), str(tmp_path), {})
    where = Layout(make_mesh({"data": 2, "model": 2}, jax.devices()[:4]))
    pair = pairs.load(str(tmp_path), where)
    prompts = [tiny_pair.PROMPT[:n] for n in range(3, 23)]
    how = {"rule": "token_v3", "alpha": 0.3, "draft_length": 2, "temperature": 1.0}
    asked = {"max_new_tokens": 6, "batch_size": 8}
    called = []
    original = stream._refilling

    def noted(*args):
        called.append(args)
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "_refilling", noted)
        found = speccascade.generate_text(pair, prompts, **how, **asked)
    assert called
    expected = speccascade.generate_text(pairs.load(str(tmp_path)), prompts, **how, **asked)
    assert [f.tokens for f in found] == [e.tokens for e in expected]
