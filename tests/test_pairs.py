import dataclasses
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest

from speccascade import models, pairs, text
from speccascade.errors import UserError
from speccascade.inference.api import generate_text
from speccascade.training import loop
from speccascade.workdir import checkpoints, files
from tests import random_params, tiny_pair
from tests.text import makers
from tests.training import tiny


@pytest.fixture(scope="module")
def pair():
    return tiny_pair.make()


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """An expert trained for two steps, and a drafter that is its copy but for the row length."""
    found = {role: str(tmp_path_factory.mktemp("trained") / role) for role in pairs.ROLES}
    config = tiny.get_config()
    config.train.num_steps = 2
    loop.train(config, found["expert"])
    shutil.copytree(found["expert"], found["drafter"])
    path = pathlib.Path(found["drafter"]) / "config.json"
    path.write_text(path.read_text().replace('"row_length": 160', '"row_length": 150'))
    return found


def moved(params):
    """Returns other parameters of the same shapes."""
    return jax.tree.map(lambda x: np.asarray(x) + 1, params)


def test_an_exported_pair_is_the_same_in_bfloat16(pair, tmp_path):
    pairs.export(pair, tmp_path, {"seed": 0})
    loaded = pairs.load(str(tmp_path))
    assert (loaded.name, loaded.context_length) == (pair.name, pair.context_length)
    assert (loaded.drafter, loaded.expert) == (pair.drafter, pair.expert)
    assert loaded.tokenizer == pair.tokenizer
    assert json.loads((tmp_path / "pair.json").read_text())["training"] == {"seed": 0}
    assert jax.tree.structure(loaded.params) == jax.tree.structure(pair.params)
    rounded = jax.tree.map(lambda x: np.asarray(x, jax.numpy.bfloat16), pair.params)
    for mine, theirs in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(rounded), strict=True):
        assert mine.dtype == np.float32  # the dtype in which these models compute
        np.testing.assert_array_equal(mine, theirs.astype(np.float32))


def test_a_rounded_pair_has_fewer_bytes(pair, tmp_path):
    for name, rounded in (("whole", False), ("rounded", True)):
        pairs.export(pair, str(tmp_path / name), {}, rounded=rounded)
    whole, rounded = (pairs.load(str(tmp_path / name)) for name in ("whole", "rounded"))
    assert rounded.expert == whole.expert  # and not one of int8 weights
    for role in pairs.ROLES:
        sizes = [
            (tmp_path / n / f"{role}.safetensors").stat().st_size for n in ("whole", "rounded")
        ]
        assert sizes[1] < 0.9 * sizes[0]  # keys and scales weigh as much in files as small as these
        for mine, theirs in zip(
            jax.tree.leaves(rounded.params[role]), jax.tree.leaves(whole.params[role]), strict=True
        ):
            assert mine.dtype == theirs.dtype
            np.testing.assert_allclose(mine, theirs, atol=np.abs(theirs).max() / 100)


def test_hash_is_of_models_and_parameters(pair, tmp_path):
    pairs.export(pair, tmp_path / "a", {})
    first = pairs.load(str(tmp_path / "a"))
    pairs.export(first, tmp_path / "b", {"other": "notes"})
    assert pairs.load(str(tmp_path / "b")).hash == first.hash
    nudged = moved(pair.params)
    pairs.export(dataclasses.replace(pair, params=nudged), tmp_path / "c", {})
    assert pairs.load(str(tmp_path / "c")).hash != first.hash


def test_hash_tells_which_model_a_drafters_name_stands_for(pair):
    one, other = pair.params["drafter"], moved(pair.params["drafter"])

    def named(**drafters):
        more = dict.fromkeys(drafters, pair.models["drafter"])
        return dataclasses.replace(
            pair, models={**pair.models, **more}, params={**pair.params, **drafters}
        )

    # "b" is another model in each, and the bytes of all models in order are the same.
    assert named(b=one, c=other).hash != named(a=one, b=other).hash
    assert named(b=one, c=other).hash == named(c=other, b=one).hash


def test_workdirs_make_a_pair_that_can_be_exported(workdirs, tmp_path):
    loaded = pairs.load(workdirs)
    assert loaded.context_length == 150
    _, params, _ = checkpoints.load_model(workdirs["expert"])
    for mine, theirs in zip(
        jax.tree.leaves(loaded.params["expert"]), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    written = pairs.export_workdirs(workdirs, str(tmp_path), "trained", ["machine=two cores"])
    assert written.name == "trained" and written.context_length == 150
    notes = json.loads((tmp_path / "pair.json").read_text())["training"]
    assert notes["machine"] == "two cores"
    assert notes["expert"]["steps"] == 2 and notes["expert"]["config"]["train"]["seed"] == 0
    with pytest.raises(UserError, match="--note=nonsense must be KEY=VALUE"):
        pairs.export_workdirs(workdirs, str(tmp_path), "trained", ["nonsense"])


def test_workdirs_of_different_vocabularies_are_refused(workdirs, tmp_path):
    other = tmp_path / "drafter"
    shutil.copytree(workdirs["drafter"], other)
    text.train(["abcdefgh" * 100], 258).save(other)
    with pytest.raises(UserError, match="have different vocabularies"):
        pairs.load({"drafter": str(other), "expert": workdirs["expert"]})
    with pytest.raises(UserError, match="give these two"):
        pairs.load({"drafter": str(other)})
    with pytest.raises(UserError, match="nothing is at .*nowhere"):
        pairs.load({"drafter": str(tmp_path / "nowhere"), "expert": workdirs["expert"]})


def test_models_of_another_vocabulary_are_refused(pair):
    smaller = text.train(["one two three"], 258)
    with pytest.raises(UserError, match="all must share one vocabulary"):
        dataclasses.replace(pair, tokenizer=smaller)


def test_models_of_two_families_are_refused(pair):
    sizes = {"d_model": 8, "num_layers": 1, "num_heads": 2, "head_dim": 4, "d_ff": 8}
    config = {"family": "encoder_decoder", "num_decoder_layers": 1, **sizes}
    expert = models.build({**config, "vocab_size": pair.tokenizer.vocab_size})
    with pytest.raises(UserError, match="give models of one family"):
        dataclasses.replace(pair, models={**pair.models, "expert": expert})


@pytest.mark.parametrize("name", ["drafter.safetensors", "expert.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("share", [None, 0.0, 0.3, 0.9])
def test_missing_and_truncated_files_are_one_line(pair, tmp_path, name, share):
    pairs.export(pair, tmp_path, {})
    path = tmp_path / name
    data = path.read_bytes()
    path.unlink()
    if share is not None:
        path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=re.escape(name)) as caught:
        pairs.load(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_parameters_of_another_model_are_refused(pair, tmp_path):
    pairs.export(pair, tmp_path, {})
    shutil.copy(tmp_path / "drafter.safetensors", tmp_path / "expert.safetensors")
    with pytest.raises(UserError, match="holds other arrays"):
        pairs.load(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_damaged_descriptions_are_one_line(pair, tmp_path, text):
    pairs.export(pair, tmp_path, {})
    (tmp_path / "pair.json").write_text(text)
    with pytest.raises(UserError, match="export the pair again"):
        pairs.load(str(tmp_path))


def test_unknown_sources_are_one_line(tmp_path):
    with pytest.raises(UserError, match="no shipped pair 'nonsense'"):
        pairs.load("shipped:nonsense")
    with pytest.raises(UserError, match="no pair at .*; give shipped:NAME"):
        pairs.load(str(tmp_path))


def write_workdir(directory, role, rows, tokenizer, likely_from=None, row_length=200):
    """Writes a model's workdir, with `rows` token ids, and returns its path.

    Whatever it reads, its logits of the ids from `likely_from` on are far above all others.
    """
    model = models.build({**tiny_pair.description(role), "vocab_size": rows})
    params = random_params.of(model, seed=len(role))
    if likely_from is not None:  # one of two neighbours, by the sign of the stream's sum
        params["head"]["weight"][likely_from::2] = 1e6
        params["head"]["weight"][likely_from + 1 :: 2] = -1e6
    path = directory / role
    path.mkdir(parents=True)
    files.write_json(str(path / "model.json"), models.describe(model))
    files.write_json(str(path / "config.json"), {"train": {"row_length": row_length}})
    tokenizer.save(path)
    with checkpoints.manager(str(path)) as saved:
        checkpoints.save(saved, 0, params, {"step": np.zeros(())})
    return str(path)


def test_rows_that_pad_an_embedding_are_cut_and_never_sampled(pair, tmp_path):
    tokenizer, size = pair.tokenizer, pair.tokenizer.vocab_size
    sources = {
        "drafter": write_workdir(tmp_path, "drafter", size + 5, tokenizer, likely_from=size),
        "expert": write_workdir(tmp_path, "expert", size + 28, tokenizer, likely_from=size),
    }
    loaded = pairs.load(sources)
    assert loaded.context_length == 200
    for role in pairs.ROLES:
        assert loaded.models[role].vocab_size == size
        assert models.describe(loaded.models[role])["vocab_size"] == size
        params = loaded.params[role]
        assert params["embedding"].shape[0] == params["head"]["weight"].shape[0] == size
        # Uncut, the model would put everything on padding.
        model, whole, _ = checkpoints.load_model(sources[role])
        tokens = np.array([[3, 4, 5]])
        logits = jax.jit(model.forward)(whole, tokens, np.array([1]))
        assert (np.asarray(logits).argmax(-1) >= size).all()
    # Bound to no device, as other tests' parameters are: what is compiled is shared.
    loaded = dataclasses.replace(loaded, params=jax.device_get(loaded.params))
    for how in (dict(rule="spec"), dict(rule="token_v3", alpha=0.5)):
        for temperature in (0.0, 1.0, 5.0):
            found = generate_text(
                loaded,
                [tiny_pair.PROMPT, *"1234567"],  # of other tests' shapes
                max_new_tokens=6,
                draft_length=2,
                temperature=temperature,
                **how,
            )
            assert all(0 <= token < size for answer in found for token in answer.tokens)


def test_more_rows_than_the_other_has_and_a_tokenizer_with_more_ids(pair, tmp_path):
    """As Gemma 3: the tokenizer has a special token for which a text model has no row."""
    proto = makers.sentence_piece("unigram")
    (tmp_path / "t5").mkdir()
    (tmp_path / "t5/tokenizer.model").write_bytes(proto)
    config = '{"tokenizer_class": "T5Tokenizer", "extra_ids": 3}'
    (tmp_path / "t5/tokenizer_config.json").write_text(config)
    tokenizer = text.load(tmp_path / "t5")
    size = tokenizer.vocab_size
    loaded = pairs.load(
        {
            "drafter": write_workdir(tmp_path, "drafter", size - 1, tokenizer),
            "expert": write_workdir(tmp_path, "expert", size + 8, tokenizer),
            "context_length": 64,
        }
    )
    assert loaded.tokenizer.vocab_size == loaded.expert.vocab_size == size - 1
    assert loaded.context_length == 64
    pairs.export(loaded, tmp_path / "exported", {})
    again = pairs.load(str(tmp_path / "exported"))
    assert again.tokenizer == loaded.tokenizer and again.tokenizer.vocab_size == size - 1


def test_the_first_differing_id_is_named(pair, tmp_path):
    root = tmp_path / "tokenizers"
    theirs = text.load(makers.byte_level(root / "expert"))
    data = (root / "expert/tokenizer.json").read_text().replace("<think>", "<thought>")
    (root / "drafter").mkdir()
    (root / "drafter/tokenizer.json").write_text(data)
    shutil.copy(root / "expert/tokenizer_config.json", root / "drafter")
    sources = {
        "drafter": write_workdir(tmp_path, "drafter", 340, text.load(root / "drafter")),
        "expert": write_workdir(tmp_path, "expert", 340, theirs),
    }
    message = "id 333 is '<thought>' to the drafter and '<think>' to the expert"
    with pytest.raises(UserError, match=message):
        pairs.load(sources)


def test_three_models_are_a_pair_with_a_middle(pair, tmp_path):
    tokenizer, size = pair.tokenizer, pair.tokenizer.vocab_size
    sources = {
        role: write_workdir(tmp_path, role, size + i, tokenizer)
        for i, role in enumerate(("middle", "drafter", "expert"))
    }
    loaded = pairs.load(sources)
    assert loaded.name == "drafter + middle + expert"
    assert {loaded.models[role].vocab_size for role in loaded.roles} == {size}
    pairs.export(loaded, tmp_path / "exported", {})
    again = pairs.load(str(tmp_path / "exported"))
    assert again.roles == ("drafter", "expert", "middle")
    assert again.models == loaded.models
    nudged = {**again.params, "middle": moved(again.params["middle"])}
    two = pairs.load({role: sources[role] for role in pairs.ROLES})
    hashes = {p.hash for p in (again, dataclasses.replace(again, params=nudged), two)}
    assert len(hashes) == 3


def test_a_pair_names_its_drafters(pair, tmp_path):
    tokenizer, size = pair.tokenizer, pair.tokenizer.vocab_size
    roles = ("expert", "drafter", "middle")
    source = {role: write_workdir(tmp_path, role, size, tokenizer) for role in roles}
    cascade = {"middle_rule": "token_v3", "middle_alpha": 0.3, "middle_draft_length": 1}
    named = {
        "small": source["drafter"],
        "mid": source["middle"],
        "ngrams": {"drafter": "lookup", "max_ngram": 2},
        "deep": {"drafter": "small", "middle": "mid", **cascade},
    }
    sources = {"drafter": source["drafter"], "expert": source["expert"]}
    loaded = pairs.load({**sources, "drafters": named})
    assert loaded.roles == ("drafter", "expert", "mid", "small")
    assert loaded.named_drafters == {name: named[name] for name in ("ngrams", "deep")}
    how = {"max_new_tokens": 4, "rule": "token_v3", "alpha": 0.3, "draft_length": 2}
    found, spelled_out = (
        generate_text(loaded, ["How many?"], **how, **own)
        for own in ({"drafter": "deep"}, named["deep"])
    )
    assert found == spelled_out and found[0].statistics["middle_calls"] > 0
    with pytest.raises(UserError, match="choose one of: drafter, mid, small, ngrams, deep, lookup"):
        generate_text(loaded, ["How many?"], **how, drafter="ngram")
    with pytest.raises(UserError, match="has lookup, which has a place of its own; rename it"):
        pairs.load({**sources, "drafters": {"lookup": named["ngrams"]}})
    with pytest.raises(UserError, match="{NAME: SOURCE or fields of a setting, ...}"):
        pairs.load({**sources, "drafters": ["ngrams"]})


def test_a_model_of_a_pair_is_a_source(pair, tmp_path):
    whole = str(tmp_path / "whole")
    pairs.export(pair, whole, {"drafter": {"steps": 7}})
    sources = {role: f"{whole}/{role}" for role in pairs.ROLES}
    again = pairs.load(sources)
    assert again.hash == pairs.load(whole).hash
    assert again.context_length == pair.context_length
    three = {**sources, "middle": sources["drafter"]}
    written = pairs.export_workdirs(three, str(tmp_path / "three"), "three")
    assert written.roles == ("drafter", "expert", "middle")
    told = json.loads((tmp_path / "three" / "pair.json").read_text())["training"]
    assert told == {"drafter": {"steps": 7}, "expert": {}, "middle": {"steps": 7}}
    (tmp_path / "whole" / "drafter.safetensors").unlink()  # of which the expert needs nothing
    pairs.load_model(sources["expert"])
    shipped = pairs.load_model("shipped:gsm_symbolic/expert", dtype="float32", weights="int8")
    assert shipped.model.config.dtype == "float32"
    assert shipped.model.config.weight_dtype == "int8"
    with pytest.raises(UserError, match="has no middle; it has: drafter, expert"):
        pairs.load_model("shipped:gsm_symbolic/middle")
    with pytest.raises(UserError, match="no shipped pair 'nothing'"):
        pairs.load_model("shipped:nothing/expert")


def test_an_expert_alone_is_a_pair(pair, workdirs, tmp_path):
    both, alone = pairs.load(workdirs), pairs.load({"expert": workdirs["expert"]})
    assert alone.drafter is None and alone.roles == ("expert",)
    assert (alone.expert, alone.name) == (both.expert, "expert")
    assert alone.hash not in (both.hash, pair.hash)
    how = {"max_new_tokens": 4, "rule": "token_v3", "alpha": 0.3, "draft_length": 2}
    (answer,) = generate_text(alone, ["How many?"], **how, drafter="lookup")
    assert answer.statistics["drafter_calls"] == 0
    assert generate_text(both, ["How many?"], **how, drafter="lookup") == [answer]
    with pytest.raises(UserError, match="needs a model that drafts"):
        generate_text(alone, ["How many?"], **how)
    pairs.export(alone, tmp_path / "exported", {})
    again = pairs.load(str(tmp_path / "exported"))
    assert again.drafter is None and again.expert == alone.expert
    with pytest.raises(UserError, match="needs a drafter; give it both or neither"):
        pairs.load({"expert": workdirs["expert"], "middle": workdirs["drafter"]})


def test_a_middle_model_of_another_vocabulary_is_refused(pair, tmp_path):
    size = pair.tokenizer.vocab_size
    other = text.train(["something else entirely"], 300)
    sources = {role: write_workdir(tmp_path, role, size, pair.tokenizer) for role in pairs.ROLES}
    middle = write_workdir(tmp_path, "middle", other.vocab_size, other)
    with pytest.raises(UserError, match="different vocabularies: id .* to the middle"):
        pairs.load({**sources, "middle": middle})


ROUNDS = {"middle_draft_length": 2}


def test_chat(tmp_path):
    tokenizer = text.load(makers.byte_level(tmp_path / "tokenizer"))
    sources = {
        role: write_workdir(tmp_path, role, tokenizer.vocab_size, tokenizer) for role in pairs.ROLES
    }
    plain, chat = pairs.load(sources), pairs.load({**sources, "chat": True})
    assert plain.encode_prompts(["Hi"]) == [tokenizer.encode("Hi")]
    message = {"role": "user", "content": "Hi"}
    assert chat.encode_prompts(["Hi"]) == [tokenizer.encode_chat([message])]
    pairs.export(chat, tmp_path / "exported", {})
    assert pairs.load(str(tmp_path / "exported")).chat
    assert pairs.chats({**sources, "chat": True}) and pairs.chats(str(tmp_path / "exported"))
    pairs.export(plain, tmp_path / "plain", {})
    assert not pairs.chats(sources) and not pairs.chats(str(tmp_path / "plain"))
    with pytest.raises(UserError, match="no pair at "):
        pairs.chats(str(tmp_path / "nowhere"))
    how = {"method": "autoregressive_expert", "max_new_tokens": 3}
    assert len(generate_text(chat, ["Hi<|im_end|>"], **how)) == 1


def test_the_day_of_a_chat_template(tmp_path):
    template = "{{ strftime_now('%Y-%m-%d') }} {{ messages[0].content }}<|im_end|>"
    tokenizer = text.load(makers.byte_level(tmp_path / "tokenizer", chat_template=template))
    sources = {
        role: write_workdir(tmp_path, role, tokenizer.vocab_size, tokenizer) for role in pairs.ROLES
    }
    chat = {**sources, "chat": True}
    usual, other = pairs.load(chat), pairs.load({**chat, "date": "2025-01-02"})
    assert usual.date == "2024-07-26" and pairs.load(sources).date is None
    assert other.date == "2025-01-02"
    for pair in (usual, other):
        [ids] = pair.encode_prompts(["Hi"])
        assert tokenizer.decode(ids) == f"{pair.date} Hi"
    pairs.export(other, tmp_path / "exported", {})
    again = pairs.load(str(tmp_path / "exported"))
    assert again.date == other.date and again.tokenizer == other.tokenizer
    with pytest.raises(
        UserError, match="pair.date=2025-01-02 is for a chat template; set pair.cha"
    ):
        pairs.load({**sources, "date": "2025-01-02"})


def test_a_pair_without_chat_template(pair):
    with pytest.raises(UserError, match="pair tiny has no chat template; leave out chat"):
        dataclasses.replace(pair, chat=True)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"context": 5},
            "give these two, not context; beside them may stand drafters, con",
        ),
        ({"context_length": "long"}, "pair.context_length='long' must be a whole number"),
        ({"context_length": 1}, "pair.context_length=1 must be at least 2"),
    ],
)
def test_bad_options(workdirs, more, message):
    with pytest.raises(UserError, match=message):
        pairs.load({**workdirs, **more})


def test_context_length(pair, tmp_path):
    size = pair.tokenizer.vocab_size
    sources = {role: write_workdir(tmp_path, role, size, pair.tokenizer) for role in pairs.ROLES}
    assert pairs.load({**sources, "context_length": 77}).context_length == 77
    (tmp_path / "drafter/config.json").write_text('{"max_position_embeddings": 9}')
    assert pairs.load(sources).context_length == 9
