"""One place has one meaning, however it is spelled and whoever is given it."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from etils import epath

from speccascade import importing, learned_head, pairs, tasks, text
from speccascade.errors import UserError
from speccascade.evaluate import evaluation
from speccascade.inputs import paths
from speccascade.report import report
from speccascade.runtime import app
from speccascade.tasks import columns
from speccascade.tasks.debian import lists
from speccascade.training import learned_head as learning
from speccascade.training import loop
from speccascade.tuning.tuner import tune
from speccascade.workdir import checkpoints, results
from tests import tiny_pair, toy_head
from tests.importing import tiny_checkpoint
from tests.training import tiny

ROOT = pathlib.Path(__file__).parents[2]
KINDS = [str, pathlib.Path, epath.Path]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory; afterwards the directory that the tests worked in must be empty."""
    made = tmp_path / "home"
    made.mkdir()
    monkeypatch.setenv("HOME", str(made))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    yield made
    assert not os.listdir(here)


@pytest.mark.parametrize("kind", KINDS)
def test_spellings(home, kind):
    assert paths.plain(kind("~")) == str(home)
    assert paths.plain(kind("~/a b/c")) == f"{home}/a b/c"
    assert paths.plain(kind("/x/~/y")) == "/x/~/y"
    assert paths.plain(kind("relative/x")) == "relative/x"
    assert paths.plain(kind("~root/x")) == os.path.expanduser("~root/x")
    for scheme in paths.BUCKETS:
        assert paths.plain(kind(f"{scheme}://bucket/a/b")) == f"{scheme}://bucket/a/b"
        assert paths.is_bucket(paths.plain(kind(f"{scheme}://bucket")))
        with pytest.raises(UserError, match=f"^{scheme}://b/w: it cannot be in a bucket; give a"):
            paths.on_disk(kind(f"{scheme}://b/w"), "it")
    for name in ("shipped:gsm_symbolic/drafter", "package:name/file.gguf", "owner/name", "a:b/c"):
        assert paths.plain(kind(name)) == name and not paths.is_bucket(name)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "'' is no path; name a file or a directory"),
        ("a\0b", "is no path"),
        (b"a", "b'a' is no path; give it as text"),
        (None, "None is no path"),
        (3, "3 is no path"),
        (["a"], r"\['a'\] is no path"),
        ("~nobody-of-this-name/x", "~nobody-of-this-name is nobody's home; write ./~nobody-of"),
        ("memory://x", "memory://x: nothing here reads memory://; give a path or gs://, s3://"),
        ("file:///x", "nothing here reads file://"),
    ],
)
def test_what_is_no_path(home, path, message):
    with pytest.raises(UserError, match=message):
        paths.plain(path)
    for use in (importing.load, pairs.load, text.load, results.read, report, pairs.load_model):
        with pytest.raises(UserError, match=message):
            use(path)
    with pytest.raises(UserError, match=message):
        loop.train(tiny.get_config(), path)


@pytest.mark.parametrize("kind", KINDS)
def test_models_pairs_and_tokenizers_below_home(home, kind):
    tiny_checkpoint.write(home / "source")
    done = importing.import_checkpoint(kind("~/source"), kind("~/work"))
    assert done.new and done.out == str(home / "work")
    assert not importing.import_checkpoint(str(home / "source"), str(home / "work")).new
    for source in ("~/source", "~/work"):
        found, same = importing.load(kind(source)), importing.load(str(home / source[2:]))
        assert found.tokenizer == same.tokenizer == text.load(kind(source))
        for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(same.params), strict=True):
            np.testing.assert_array_equal(a, b)
    pair = pairs.load({"drafter": kind("~/source"), "expert": kind("~/work")})
    assert pair.name == "source + work"
    pairs.export(pair, kind("~/pair"), {})
    assert pairs.load(kind("~/pair")).hash == pairs.load(str(home / "pair")).hash
    found = pairs.load_model(kind("~/pair/drafter"))
    assert found.context_length == pair.context_length
    exported = pairs.export_workdirs(
        {role: kind("~/pair/" + role) for role in pairs.ROLES}, kind("~/again"), "again"
    )
    assert exported.name == "again" and (home / "again" / "pair.json").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_heads_and_rows_of_tasks_below_home(home, kind):
    head = learned_head.load(toy_head.PATH)
    learned_head.save(head, kind("~/head.json"), {})
    for path in (kind("~/head.json"), str(home / "head.json")):
        assert learned_head.load(path) == head
    (home / "q.jsonl").write_text('{"prompt": "a?", "answers": ["b"], "split": "test"}\n')
    config = tiny.get_config()
    config.task = {"name": "questions", "path": kind("~/q.jsonl")}
    assert len(tasks.make(config.task).examples("test")) == 1
    (home / "rows").mkdir()
    (home / "rows" / "test.jsonl").write_text('{"a": 1}\n')
    assert columns.read(columns.Hub("x/y"), kind("~/rows"), None, "test") == [{"a": 1}]
    for language in lists.LANGUAGES:
        (home / "rows" / f"Translation-{language}").write_text(language)
    assert lists.read(kind("~/rows")) == {"en": "en", "de": "de"}


@pytest.mark.parametrize("kind", [pathlib.Path, epath.Path])
def test_a_sweep_below_home(home, kind):
    pairs.export(tiny_pair.make(), home / "pair", {})
    config = tiny_pair.get_config()
    del config.pair
    config.pair = kind("~/pair")
    config.evaluate.settings = ({"method": "autoregressive_expert", "temperature": np.float32(0)},)
    config.evaluate.timing = {"num_examples": 0, "trials": 1}
    assert evaluation.evaluate(config, kind("~/w")).measured == 2
    del config.pair
    config.pair = "~/pair"
    assert evaluation.evaluate(config, "~/w").measured == 0
    assert len(results.read(kind("~/w"))) == len(results.read(home / "w")) == 2
    report(kind("~/w"))
    assert (home / "w" / "report" / "report.md").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_below_home(home, kind):
    config = tiny.get_config()
    config.train.num_steps = 2
    loop.train(config, kind("~/t"))
    _, _, tokenizer = checkpoints.load_model(kind("~/t"))
    assert tokenizer == text.load(home / "t")
    assert pairs.load({"drafter": kind("~/t"), "expert": home / "t"}).name == "t + t"


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_write_to_a_bucket_says_so_and_makes_nothing(home, kind):
    there = kind("gs://bucket/w")
    sweep = tiny_pair.get_config()
    for use in (
        lambda: learning.learn(sweep, there, 20, 0),
        lambda: pairs.export(tiny_pair.make(), there, {}),
        lambda: evaluation.evaluate(sweep, there, profile=True),
        lambda: learned_head.save(learned_head.load(toy_head.PATH), there, {}),
        lambda: lists.read(there),
    ):
        with pytest.raises(UserError, match="^gs://bucket/w: .* cannot be in a bucket; give a"):
            use()


def test_flags_below_home(home):
    (home / "c.py").write_text((ROOT / "tests/training/tiny.py").read_text())
    there = f"{home}/c.py:sgd_of_nobody"
    assert app._where_configs_are(["x", "--config", "~/c.py:sgd_of_nobody"])[2] == there
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "scripts/train.py")),
            *("--config=~/c.py:sgd_of_nobody", "--workdir=~/t"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    # The config was found: it is the optimizer's name that is refused.
    assert done.returncode == 2 and "sgd_of_nobody" in done.stderr, done
    assert "no such file" not in done.stderr and not (home / "t").exists()


def test_tune_takes_a_path(home):
    with pytest.raises(UserError, match="give one of --max_quality_loss and --min_speedup"):
        tune(tiny_pair.get_config(), pathlib.Path("~/w"))
    with pytest.raises(UserError, match="nothing here reads memory://"):
        tune(tiny_pair.get_config(), "memory://w", min_speedup=1.0)
