"""Checkpoints in the Hugging Face layout: what becomes of them, and what is wrong with bad ones."""

import json
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import jax
import ml_dtypes
import numpy as np
import pytest
import tiny_checkpoint as tiny
import tiny_t5_checkpoint as tiny_t5
from etils import epath

from speccascade import importing, models, pairs
from speccascade.errors import UserError
from speccascade.importing import preparation, sources, writing
from speccascade.workdir import checkpoints
from tests.text import makers

ROOT = pathlib.Path(__file__).parents[2]


def flat(params):
    return {key: np.asarray(leaf) for key, leaf in preparation.flat(params).items()}


def assert_same(params, others):
    params, others = flat(params), flat(others)
    assert params.keys() == others.keys()
    for key in params:
        assert params[key].dtype == others[key].dtype
        np.testing.assert_array_equal(params[key], others[key], err_msg=key)


@pytest.mark.parametrize("shards", [1, 3])
def test_every_parameter_is_its_tensor(tmp_path, shards):
    loaded = importing.load(str(tiny.write(tmp_path / "hf", shards=shards)))
    params, weights = flat(loaded.params), tiny.tensors()
    assert len(params) == len(weights)
    for key, name in tiny.KEYS.items():
        np.testing.assert_array_equal(params[key], weights[name])
    assert loaded.context_length == 64
    assert loaded.tokenizer.vocab_size == 258 and loaded.model.vocab_size == 260
    forward = jax.jit(loaded.model.forward)
    logits = forward(loaded.params, np.array([[1, 2, 3]]), np.array([3]))
    assert logits.shape == (1, 3, 260) and np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("stored", "asked", "made"),
    [
        (np.float32, None, "float32"),
        (np.float16, None, "float32"),  # bfloat16 would lose three bits
        (ml_dtypes.bfloat16, None, "bfloat16"),
        (ml_dtypes.bfloat16, "float32", "float32"),
        (np.float32, "bfloat16", "bfloat16"),
    ],
)
def test_dtypes(tmp_path, stored, asked, made):
    weights = tiny.tensors(stored)
    model, params, _ = importing.load_model(str(tiny.write(tmp_path / "hf", weights)), asked)
    described = models.describe(model)
    assert described["dtype"] == described["param_dtype"] == made
    for key, name in tiny.KEYS.items():
        expected = weights[name].astype(made)
        assert flat(params)[key].dtype == expected.dtype
        np.testing.assert_array_equal(flat(params)[key], expected)


def test_large_tensors_are_read_in_pieces(tmp_path, monkeypatch):
    path = str(tiny.write(tmp_path / "hf"))
    whole = importing.load(path).params
    monkeypatch.setattr(importing.arrays, "_PIECE", 7 * 16 * 4)
    assert_same(importing.load(path).params, whole)


def test_norms_of_gemma(tmp_path):
    weights = {k: v for k, v in tiny.tensors().items() if k != "lm_head.weight"}
    path = tiny.write(
        tmp_path / "hf",
        weights,
        architectures=["GemmaForCausalLM"],
        model_type="gemma",
        hidden_act="gelu_pytorch_tanh",
        tie_word_embeddings=True,
        head_dim=4,
    )
    params = flat(importing.load(str(path)).params)
    assert "head/weight" not in params
    norm = tiny.tensors()["model.norm.weight"]
    np.testing.assert_array_equal(params["final_norm/scale"], norm + np.float32(1))


def test_a_head_that_is_stored_again_is_tied_where_it_is_the_embedding(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "_PIECE", 7 * 16 * 4)
    weights = tiny.tensors(ml_dtypes.bfloat16)
    embedding = weights["model.embed_tokens.weight"]
    weights["lm_head.weight"] = embedding.copy()
    tied = importing.load(str(tiny.write(tmp_path / "same", weights, tie_word_embeddings=True)))
    assert tied.model.config.tie_embeddings and "head/weight" not in flat(tied.params)
    weights["lm_head.weight"] = embedding.copy()
    weights["lm_head.weight"][259, 15] += 1
    path = str(tiny.write(tmp_path / "other", weights, tie_word_embeddings=True, shards=2))
    untied = importing.load(path)
    assert not untied.model.config.tie_embeddings
    np.testing.assert_array_equal(flat(untied.params)["head/weight"], weights["lm_head.weight"])
    # Another shape is another tensor, and a wrong one.
    weights["lm_head.weight"] = embedding[:9]
    path = tiny.write(tmp_path / "short", weights, tie_word_embeddings=True)
    with pytest.raises(UserError, match=r"lm_head.weight is \[9, 16\] instead of \[260, 16\]"):
        importing.load(str(path))


def test_the_head_of_a_t5_is_its_embedding_where_it_has_none(tmp_path):
    weights = tiny_t5.tensors()
    head = weights.pop("lm_head.weight")
    path = tiny_t5.write(tmp_path / "without", weights)
    found = importing.load(str(path))
    assert not found.model.config.tie_embeddings  # that would scale it
    params = flat(found.params)
    np.testing.assert_array_equal(params["head/weight"], weights["shared.weight"])
    np.testing.assert_array_equal(params["embedding"], weights["shared.weight"])
    path = tiny_t5.write(tmp_path / "with", {**weights, "lm_head.weight": head})
    np.testing.assert_array_equal(flat(importing.load(str(path)).params)["head/weight"], head)
    scaled = {"tie_word_embeddings": True}
    assert importing.load(str(tiny_t5.write(tmp_path / "scaled", weights, **scaled)))
    path = tiny_t5.write(tmp_path / "both", {**weights, "lm_head.weight": head}, **scaled)
    with pytest.raises(UserError, match="the head in the checkpoint is not the embedding: .*scale"):
        importing.load(str(path))


def test_workdir_round_trip(tmp_path):
    source, out = tiny.write(tmp_path / "hf"), tmp_path / "runs" / "out"
    done = importing.import_checkpoint(str(source), str(out))
    assert done.new and done.nbytes == 4 * sum(w.size for w in tiny.tensors().values())
    assert "float32" in str(done) and "MB/s" in str(done)
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    memory, disk = importing.load(str(source)), importing.load(str(out))
    assert_same(disk.params, memory.params)
    assert disk.model == memory.model and disk.tokenizer == memory.tokenizer
    assert disk.context_length == 64
    assert_same(checkpoints.load_model(str(out))[1], memory.params)
    other = importing.load(str(out), dtype="bfloat16")
    assert other.model.config.dtype == "bfloat16"
    assert_same(other.params, memory.params)  # as stored: a pair casts them


def test_meanwhile_it_lies_on_all_devices(tmp_path, monkeypatch):
    seen, save = [], checkpoints.save_params

    def spy(workdir, params):
        seen.append(params)
        save(workdir, params)

    monkeypatch.setattr(checkpoints, "save_params", spy)
    weights = tiny.tensors(
        shapes={k: (264, 16) if v[0] == 260 else v for k, v in tiny.SHAPES.items()}
    )
    source = tiny.write(tmp_path / "hf", weights, vocab_size=264)
    importing.import_checkpoint(str(source), str(tmp_path / "out"))
    assert seen[0]["embedding"].sharding.shard_shape((264, 16)) == (264 // jax.device_count(), 16)
    assert_same(importing.load(str(tmp_path / "out")).params, importing.load(str(source)).params)


def test_norms_keep_their_own_dtype_on_disk(tmp_path):
    gemma = {"architectures": ["GemmaForCausalLM"], "model_type": "gemma", "head_dim": 4}
    weights = tiny.tensors(ml_dtypes.bfloat16)
    del weights["lm_head.weight"]
    source = tiny.write(
        tmp_path / "hf", weights, hidden_act="gelu", tie_word_embeddings=True, **gemma
    )
    importing.import_checkpoint(str(source), str(tmp_path / "out"))
    params = importing.load(str(tmp_path / "out")).params
    assert_same(params, importing.load(str(source)).params)
    assert flat(params)["final_norm/scale"].dtype == np.float32
    assert flat(params)["embedding"].dtype == ml_dtypes.bfloat16


def test_shardings(tmp_path):
    mesh = jax.make_mesh((2,), ("x",))
    source, out = str(tiny.write(tmp_path / "hf")), str(tmp_path / "out")

    def shardings(axis):
        def of(key, shape):
            split = len(shape) == 2 and "attention" not in key
            spec = [None, None]
            spec[axis] = "x"
            names = jax.sharding.PartitionSpec(*(spec if split else ()))
            return jax.sharding.NamedSharding(mesh, names)

        return of

    whole = importing.load(source).params
    rows = importing.load(source, shardings=shardings(0)).params
    assert rows["embedding"].sharding.shard_shape((260, 16)) == (130, 16)
    assert_same(rows, whole)
    importing.import_checkpoint(source, out, shardings=shardings(0))
    columns = importing.load(out, shardings=shardings(1)).params
    assert columns["embedding"].sharding.shard_shape((260, 16)) == (260, 8)
    assert_same(columns, whole)
    assert_same(importing.load(out).params, whole)


def test_what_was_written_loads_on_other_devices(tmp_path):
    """Saved over two devices here, read by a process that has one."""
    mesh = jax.make_mesh((2,), ("x",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    source, out = str(tiny.write(tmp_path / "hf")), str(tmp_path / "out")
    importing.import_checkpoint(source, out, shardings=lambda key, shape: rows)
    code = f"""
import jax, numpy as np
from speccascade import importing
params = importing.load({out!r}).params
assert params["embedding"].sharding.device_set == set(jax.devices()) and len(jax.devices()) == 1
np.save({str(tmp_path / "embedding.npy")!r}, params["embedding"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = tiny.tensors()["model.embed_tokens.weight"]
    np.testing.assert_array_equal(np.load(tmp_path / "embedding.npy"), expected)


def test_again_into_the_same_directory(tmp_path):
    source, out = str(tiny.write(tmp_path / "hf")), str(tmp_path / "out")
    pathlib.Path(out).mkdir()  # empty, so it may be filled
    assert importing.import_checkpoint(source, out).new
    again = importing.import_checkpoint(source, out)
    assert not again.new and "nothing was done" in str(again)
    with pytest.raises(UserError, match="holds another import, of .* in float32"):
        importing.import_checkpoint(source, out, dtype="bfloat16")
    weights = tiny.tensors()
    weights["model.norm.weight"][3] += 1
    other = str(tiny.write(tmp_path / "other", weights))
    with pytest.raises(UserError, match="holds another import"):
        importing.import_checkpoint(other, out)


def test_a_directory_with_something_else(tmp_path):
    source = str(tiny.write(tmp_path / "hf"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        importing.import_checkpoint(source, str(tmp_path / "out"))
    with pytest.raises(UserError, match="is a file"):
        importing.import_checkpoint(source, str(tmp_path / "out" / "notes.txt"))
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("place", ["read_params", "save_params"])
def test_nothing_is_left_of_an_import_that_stops(tmp_path, monkeypatch, error, place):
    source = str(tiny.write(tmp_path / "hf"))

    def stop(*_):
        raise error

    owner = writing.arrays if place == "read_params" else checkpoints
    with monkeypatch.context() as patch:
        patch.setattr(owner, place, stop)
        with pytest.raises(error):
            importing.import_checkpoint(source, str(tmp_path / "runs" / "out"))
    assert list((tmp_path / "runs").iterdir()) == []
    # One that was killed could not clean up: the next one does.
    (tmp_path / "runs" / ".out.partial" / "checkpoints").mkdir(parents=True)
    importing.import_checkpoint(source, str(tmp_path / "runs" / "out"))
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["out"]


def changed(**tensors):
    """A directory with other tensors; None leaves one out."""

    def make(folder):
        weights = tiny.tensors() | {k.replace("__", "."): v for k, v in tensors.items()}
        return tiny.write(folder, {k: v for k, v in weights.items() if v is not None})

    return make


def config(**fields):
    return lambda folder: tiny.write(folder, **fields)


def edited(file, change, shards=1):
    """A directory of which one file's bytes are changed; None removes the file."""

    def make(folder):
        path = tiny.write(folder, shards=shards) / file
        data = change(path.read_bytes())
        path.unlink() if data is None else path.write_bytes(data)
        return folder

    return make


def moved(data):
    index = json.loads(data)
    index["weight_map"]["model.norm.weight"] = index["weight_map"]["lm_head.weight"]
    index["weight_map"]["model.extra.weight"] = index["weight_map"]["lm_head.weight"]
    return json.dumps(index).encode()


def nan(value, dtype):
    weights = tiny.tensors(dtype)
    weights["model.layers.1.mlp.up_proj.weight"][3, 2] = value
    weights["lm_head.weight"][259, 15] = value
    return lambda folder: tiny.write(folder, weights)


def without_eos(folder):
    tiny.write(folder)
    (folder / "tokenizer.json").unlink()
    return makers.byte_level(folder, eos_token=None)


NORM, INDEX, SHARD = np.ones(16, np.float32), "model.safetensors.index.json", "model-00002-of-00003"
BAD = {
    "missing": (changed(model__norm__weight=None), ["missing: model.norm.weight"]),
    "left over": (changed(model__extra__weight=NORM), ["left over", "model.extra.weight"]),
    "shape": (
        changed(model__norm__weight=np.ones(15, np.float32)),
        ["model.norm.weight is [15] instead of [16]"],
    ),
    "all at once": (
        lambda folder: tiny.write(
            folder,
            {k: v[:7] for k, v in tiny.tensors().items() if "layers.1" not in k}
            | {f"extra.{n}": NORM for n in range(12)},
            new_gate="on",
            clip=3,
        ),
        [
            "fields that are not implemented: clip, new_gate",
            "missing: model.layers.1.input_layernorm.weight",
            "and 1 more",
            "left over",
            "extra.0, extra.1",
            "and 4 more",
            "model.embed_tokens.weight is [7, 16] instead of [260, 16]",
        ],
    ),
    "architecture": (
        config(architectures=["MambaForCausalLM"]),
        ["architectures='MambaForCausalLM': not implemented, only Llama"],
    ),
    "no architecture": (
        config(architectures=None, model_type=None),
        ["config.json lacks architectures"],
    ),
    "field": (config(logit_scale=0.5), ["logit_scale=0.5: not implemented, only 1.0"]),
    "field missing": (config(hidden_size=None), ["config.json lacks hidden_size"]),
    "value": (config(hidden_act="quick_gelu"), ["hidden_act='quick_gelu'"]),
    "impossible": (config(num_key_value_heads=3), ["num_key_value_heads|num_kv_heads"]),
    "length": (config(max_position_embeddings=None), ["lacks max_position_embeddings"]),
    "no config": (edited("config.json", lambda data: None), ["config.json is missing"]),
    "config": (edited("config.json", lambda data: data[:9]), ["config.json is no JSON"]),
    "config list": (
        edited("config.json", lambda data: b"[]"),
        ["config.json holds no JSON object"],
    ),
    "dtype": (
        changed(model__norm__weight=np.ones(16, np.int8)),
        ["unknown dtypes (known: F32, F16, BF16): model.norm.weight is I8"],
    ),
    "cut short": (
        edited("model.safetensors", lambda data: data[:-5]),
        ["model.safetensors is damaged or cut short"],
    ),
    "header cut": (edited("model.safetensors", lambda data: data[:50]), ["cut short"]),
    "empty": (edited("model.safetensors", lambda data: b""), ["cut short"]),
    "no weights": (edited("model.safetensors", lambda data: None), ["neither model.safetensors"]),
    "shard missing": (
        edited(f"{SHARD}.safetensors", lambda data: None, shards=3),
        [f"shard {SHARD}.safetensors is missing"],
    ),
    "shard cut short": (
        edited(f"{SHARD}.safetensors", lambda data: data[:-1], shards=3),
        [f"{SHARD}.safetensors is damaged or cut short"],
    ),
    "index": (edited(INDEX, lambda data: data[:-3], shards=3), [f"{INDEX} is no JSON"]),
    "index empty": (edited(INDEX, lambda data: b"{}", shards=3), [f"{INDEX} lacks weight_map"]),
    "index wrong": (
        edited(INDEX, moved, shards=3),
        ["has model.extra.weight in model-0000", "which does not hold it"],
    ),
    "index outside": (
        edited(INDEX, lambda data: data.replace(SHARD.encode(), b"../hf/m"), shards=3),
        ["shard ../hf/m.safetensors is missing"],
    ),
    "tokenizer": (edited("tokenizer.json", lambda data: None), ["no tokenizer at"]),
    "tokenizer cut": (edited("tokenizer.json", lambda data: data[:99]), ["tokenizer.json"]),
    "no end of sequence": (without_eos, ["no end-of-sequence token; name one as eos_token"]),
    "nan": (
        nan(np.nan, np.float32),
        ["NaN or infinite values: lm_head.weight, model.layers.1.mlp.up_proj.weight"],
    ),
    "inf": (nan(-np.inf, ml_dtypes.bfloat16), ["lm_head.weight, model.layers.1.mlp.up"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_checkpoints(tmp_path, name):
    make, words = BAD[name]
    source = make(tmp_path / "hf")
    with pytest.raises(UserError) as error:
        importing.import_checkpoint(str(source), str(tmp_path / "out"))
    message = str(error.value)
    assert "\n" not in message and len(message) < 1500
    for word in words:
        assert any(choice in message for choice in word.split("|")), message
    if "shard" in name:  # what it held is not named tensor by tensor
        assert "missing:" not in message
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_bad_dtype(tmp_path):
    with pytest.raises(UserError, match="dtype 'int4' is unknown"):
        importing.load(str(tiny.write(tmp_path / "hf")), "int4")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/nowhere/at/all", ["nothing is at /nowhere/at/all", "hub id"]),
        ("nowhere.gguf", ["nothing is at nowhere.gguf"]),
        ("package:not_there/x.gguf", ["no package 'not_there' is installed", "not-there"]),
        ("package:speccascade/x.gguf", ["speccascade has no x.gguf"]),
        ("package:speccascade", ["package:speccascade: "]),
    ],
)
def test_sources_that_are_not_there(source, words):
    with pytest.raises(UserError) as error:
        importing.load(source)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_a_file_in_a_package(tmp_path, monkeypatch):
    package = tmp_path / "some_weights"
    tiny.write(package / "model")
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert importing.load("package:some_weights/model").context_length == 64


def test_a_bucket_is_copied_and_the_copy_deleted(tmp_path, monkeypatch):
    bucket = tiny.write(tmp_path / "bucket" / "model", shards=2)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))

    def path(name):
        return epath.Path(str(name).replace("gs://", f"{tmp_path}/"))

    monkeypatch.setattr(sources, "epath", SimpleNamespace(Path=path))
    monkeypatch.setattr(importing, "epath", SimpleNamespace(Path=path))
    found = importing.load("gs://bucket/model")
    assert_same(found.params, importing.load(str(bucket)).params)
    assert list(scratch.iterdir()) == []
    with pytest.raises(UserError, match="nothing is at gs://bucket/none"):
        importing.load("gs://bucket/none")


def test_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    made, asked = tiny.write(tmp_path / "hf", new_gate=1), []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(made)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UserError, match="not implemented: new_gate"):
        importing.load("some-org/some.model-1b")
    assert asked == [
        ("some-org/some.model-1b", ["config.json", "generation_config.json"])
    ]  # and no weights in vain
    (made / "config.json").write_text(json.dumps(tiny.CONFIG))
    assert importing.load("some-org/some.model-1b").context_length == 64

    def fail(name, allow_patterns):
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match="the hub did not give it: We couldn't connect$"):
        importing.load("some-org/some.model-1b")


def test_pairs_of_any_two_sources(tmp_path):
    source, out = str(tiny.write(tmp_path / "hf")), str(tmp_path / "out")
    importing.import_checkpoint(source, out)
    pair = pairs.load({"drafter": source, "expert": out})
    assert pair.context_length == 64
    assert pair.drafter.vocab_size == pair.tokenizer.vocab_size == 258  # padding is cut away
    assert_same(pair.params["drafter"], pair.params["expert"])


def test_script(tmp_path):
    source, out = str(tiny.write(tmp_path / "hf")), str(tmp_path / "out")
    command = [sys.executable, "scripts/import_checkpoint.py", f"--source={source}", f"--out={out}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert "peak host memory" in done.stdout and (tmp_path / "out" / "model.json").exists()
