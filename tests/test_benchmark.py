"""The benchmark: its arithmetic, its synthetic pair, and that it runs. No time is ever compared."""

import dataclasses
import pathlib
import runpy
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from speccascade import decode, models, pairs, rules
from speccascade.benchmark import benchmarking, clock, decoding, steps, synthetic
from speccascade.benchmark.progress import Progress
from speccascade.benchmark.size import Size
from speccascade.benchmark.subject import case, load
from speccascade.errors import UserError
from speccascade.inference.drafting.lookup import ByLookup
from speccascade.inference.drafting.lookup_or_model import ByLookupOrModel
from speccascade.inference.formula import allowed_speedup, expected_tokens
from speccascade.inference.setting import ByModel
from speccascade.inference.sweep import product
from tests import tiny_pair
from tests.smallest_model import MODEL

# ---- arithmetic ----


@pytest.mark.parametrize(("acceptance", "length", "tokens"), [(0, 3, 1), (1, 3, 4), (0.5, 2, 1.75)])
def test_expected_tokens_of_known_blocks(acceptance, length, tokens):
    assert expected_tokens(acceptance, length) == tokens


@pytest.mark.parametrize("a", [0.1, 0.8, 0.999])
@pytest.mark.parametrize("n", [1, 4, 9])
def test_expected_tokens_closed_form(a, n):
    assert expected_tokens(a, n) == pytest.approx((1 - a ** (n + 1)) / (1 - a))


def test_allowed_speedup_is_the_formula():
    a, n, c, s, d = 0.8, 4, 0.1, 1.3, 5
    formula = (1 - a ** (n + 1)) / ((1 - a) * (d * c + s))
    unit = 0.02
    got = allowed_speedup(expected_tokens(a, n), d * c * unit, s * unit, unit)
    assert got == pytest.approx(formula)


def measured(seconds, emitted, expert_calls, drafter_calls=0.0, tested=1.0, rejected=0.0):
    """Returns the times and counts of a batch, per row; every other count is zero."""
    rows = len(emitted)
    given = {"emitted": emitted, "expert_calls": expert_calls, "drafter_calls": drafter_calls}
    given |= {"tested": tested, "rejected": rejected}
    counts = {k: np.broadcast_to(given.get(k, 0.0), rows) for k in decode.Stats._fields}
    return clock.Measured((seconds,), counts)


BY_MODEL = ByModel()
STEPS = {("drafter", 1): 0.01, ("drafter", 2): 0.02, ("expert", 1): 0.1, ("expert", 4): 0.13}


def speed(rule, length, batches, scorer="expert", batch=1, drafting=BY_MODEL):
    made = rules.make(rule, **KNOBS.get(rule, {}))
    part = decoding.Decoding(None, made, length, scorer, batch, drafting)
    return decoding.speed([part] * len(batches), batches, lambda role, n: STEPS[role, n])


KNOBS = {"chow": {"alpha": 0.5}, "bild": {"alpha": 1.0}}


def test_speed_of_a_rule_that_reads_the_drafter():
    # 10 blocks of 0.2 s; N + 1 drafter passes of 0.01 s and one scoring of 0.13 s each.
    s = speed("chow", 3, [measured(2.0, [25], [10], 40, tested=20, rejected=4)])
    assert s.tokens_per_second == 12.5
    assert s.block_seconds == 0.2
    assert s.tokens_per_block == 2.5
    assert s.acceptance == 0.8
    assert s.drafter_steps == 4
    assert s.neither == pytest.approx(1 - 0.17 / 0.2)
    assert s.allowed == pytest.approx((1 + 0.8 + 0.64 + 0.512) / 1.7)


def test_speed_of_speculative_decoding_counts_its_wider_first_pass():
    s = speed("spec", 3, [measured(2.0, [25], [10], 30, tested=20, rejected=4)])
    assert s.drafter_steps == 3
    assert s.neither == pytest.approx(1 - (0.02 + 2 * 0.01 + 0.13) / 0.2)


def test_speed_of_a_batch_counts_the_blocks_of_its_longest_row():
    s = speed("chow", 3, [measured(2.0, [25, 15], [8, 10]), measured(1.0, [9, 9], [5, 4])], batch=2)
    assert s.block_seconds == 3.0 / 15
    assert s.tokens_per_second == 58 / 3.0
    assert s.tokens_per_block == 58 / 27


def test_speed_alone():
    s = speed("spec", 0, [measured(2.0, [16], [16])])
    assert s.neither == pytest.approx(1 - 0.1 / 0.125)
    assert s.acceptance is s.allowed is s.drafter_steps is None
    assert speed("spec", 0, [measured(1.0, [50], [50])], "drafter").neither == pytest.approx(0.5)


def test_speed_where_blocks_end_early():
    batches = [measured(2.0, [25], [10], 35, tested=20, rejected=1)]
    s = speed("bild", 3, batches)
    assert s.drafter_steps == 3.5
    assert s.allowed == pytest.approx(2.5 / ((3.5 * 0.01 + 0.13) / 0.1))
    s = speed("bild", 3, batches, batch=8)
    assert s.allowed is s.neither is s.drafter_steps is None


def test_speed_of_a_lookup_is_that_of_whole_blocks_scored():
    s = speed("spec", 3, [measured(2.0, [25], [10], tested=20, rejected=4)], drafting=ByLookup())
    assert s.drafter_steps == 0 and s.acceptance == 0.8 and s.expected is None
    assert s.neither == pytest.approx(1 - 0.13 / 0.2)
    assert s.allowed == pytest.approx(2.5 / 1.3)


def test_speed_of_a_lookup_joined_with_a_model_counts_its_passes():
    joined = {"drafting": ByLookupOrModel(ByLookup(), ByModel())}
    batches = [measured(2.0, [25], [10], 15, tested=20, rejected=4)]
    s = speed("spec", 3, batches, **joined)
    assert s.drafter_steps == 1.5 and s.acceptance == 0.8 and s.expected == 2.5
    assert s.neither == pytest.approx(1 - (1.5 * 0.01 + 0.13) / 0.2)
    assert s.allowed == pytest.approx(2.5 * 0.1 / (1.5 * 0.01 + 0.13))
    assert speed("spec", 3, batches, batch=2, **joined).allowed is None


# ---- the synthetic pair ----


def generate(agreement, draft_length=3, batch=4, room=100):
    """Returns (expert's own text, drafter's own, speculative output) of a synthetic pair."""
    (drafter, q), (expert, p) = (synthetic.build(MODEL, seed) for seed in range(2))
    q = {**q, "agreement": jnp.float32(agreement)}
    prompts = [[i + 1, 2 * i + 1] for i in range(batch)]
    table = decode.stop_table(37, ())
    rows = decode.make_rows(prompts, stop_table=table, max_new_tokens=room, prompt_slots=4)
    decoder = decode.Decoder(expert, decode.ModelDrafter(drafter), draft_length, room)
    params = {"drafter": q, "expert": p}
    return (
        decode.autoregressive(expert, p, rows, room).tokens[:, :room],
        decode.autoregressive(drafter, q, rows, room).tokens[:, :room],
        decode.generate(decoder, params, (rules.make("spec"),), rows),
    )


@pytest.mark.parametrize("agreement", [0.0, 0.6, 1.0])
def test_agreement_is_as_asked_for(agreement):
    by_expert, by_drafter, out = generate(agreement)
    np.testing.assert_array_equal(out.tokens[:, :100], by_expert)
    acceptance = 1 - out.stats.rejected.sum() / out.stats.tested.sum()
    # About 250 tested positions: 0.03 is one standard deviation, and 0 and 1 are exact.
    tolerance = 0.12 if 0 < agreement < 1 else 0
    assert abs(acceptance - agreement) <= tolerance
    assert (by_drafter == by_expert).all() == (agreement == 1)
    assert len(np.unique(by_expert)) > 30


def test_the_real_logits_are_still_there():
    model, params = synthetic.build(MODEL, 0)
    inner = models.build(MODEL)
    tokens = jnp.arange(12).reshape(2, 6)
    lengths = jnp.array([3, 3])
    steered = jax.jit(model.forward)(params, tokens, lengths)
    added = steered - jax.jit(inner.forward)(params["model"], tokens, lengths)
    chosen = np.abs(added) > 1
    assert (chosen.sum(-1) == 1).all()
    np.testing.assert_allclose(added[~chosen], 0, atol=1e-6)


# ---- clock and steps ----


def call(log, name, pause=0.0):
    """Returns a call that says so when it is prepared and run."""

    def run(_):
        time.sleep(pause)
        log.append(name)

    return clock.Timed(
        lambda: log.append(f"warm {name}"), lambda: log.append(f"prepare {name}"), run, str
    )


def test_every_call_runs_in_turn_and_is_known_with_its_last_run():
    log = []
    calls = {name: call(log, name) for name in "abc"}
    with Progress(log.append, 1) as progress:
        progress.begin_part()
        clock.warm(calls, progress)
        assert log == ["warm a", "warm b", "warm c"]
        log.clear()
        for name, measured in clock.measure(calls, 3, lambda name: 0.0, progress):
            assert len(measured.times) == 3 and measured.result == "None"
            progress.say(f"found {name}")
    runs = [entry for entry in log if len(entry) == 1]
    assert runs == [*"bca", *"cab", *"abc"]
    assert log[-9:-6] == ["prepare a", "a", "found a"] and log[-1] == "found c"
    assert [log[i - 1] for i, entry in enumerate(log) if len(entry) == 1] == [
        f"prepare {name}" for name in runs
    ]


@pytest.mark.parametrize(("trials", "in_time"), [(9, 2), (1, 1)])
def test_no_trial_begins_that_would_end_late(trials, in_time):
    log = []
    with Progress(log.append, 1) as progress:
        progress.begin_part()
        calls = {name: call(log, name, 0.01) for name in "ab"}
        found = list(clock.measure(calls, trials, lambda name: 0.0, progress, deadline=0.015))
    assert {name: len(measured.times) for name, measured in found} == {"a": in_time, "b": in_time}
    assert log.count("a") == log.count("b") == in_time


@pytest.mark.parametrize(
    ("seconds", "fitted"),
    [
        (1000.0, (4, 64, 5)),  # as wanted
        (800.0, (4, 64, 3)),  # 256 tokens of a trial, one second each
        (300.0, (2, 64, 2)),
        (100.0, (1, 50, 2)),
        (0.0, (1, 32, 2)),
    ],
)
def test_trials_then_prompts_then_tokens_give_way(seconds, fitted):
    wanted = Size(batches=4, tokens=64, trials=5)
    assert wanted.work == 1280
    found = wanted.fitted(seconds, per_token=1.0 if seconds < 1000 else 0.5)
    assert found == fitted
    assert ("benchmark.minutes" in found.told(1, 8, wanted)) == (found[:2] != wanted[:2])


def test_a_short_answer_is_not_made_longer():
    assert Size(1, 8, 3).fitted(0.0, 1.0) == (1, 8, 2)


class Counter:
    """A model whose cache counts its passes and keeps the positions of the last one."""

    vocab_size = 8

    def init_cache(self, batch, slots, rollback):
        return jnp.zeros((), jnp.int32), jnp.zeros((batch, 3), jnp.int32)

    def apply(self, params, tokens, positions, cache):
        return jnp.zeros((*tokens.shape, 8)), (cache[0] + 1, positions)


@pytest.mark.parametrize(("position", "first"), [(4, 4), (90, 16)])
def test_a_step_runs_as_often_as_asked_within_its_slots(position, first):
    timed = steps.step(Counter(), (), 2, 3, position, slots=20, repeats=5)
    (passes, positions), logits = timed.run(timed.prepare())
    assert passes == 5
    np.testing.assert_array_equal(positions, [[first, first + 1, first + 2]] * 2)
    assert logits.shape == (2, 3, 8)


# ---- the whole ----


def synthetic_config(**changes):
    config = ml_collections.ConfigDict()
    config.synthetic = {"prompt_length": 3, "drafter": dict(MODEL), "expert": dict(MODEL)}
    config.benchmark = {
        "settings": product(rule="spec", draft_length=2, agreement=(0.0, 1.0))
        + product(rule="bild", alpha=3.0, draft_length=2, agreement=0.5),
        "batch_sizes": (1, 2),
        "num_examples": 1,
        "max_new_tokens": 6,
        "step_tokens": (1, 3),
        "step_repeats": 2,
        "trials": 1,
        "minutes": 10,
    }
    for name, value in changes.items():
        config.update_from_flattened_dict({name.replace("__", "."): value})
    return config


def tables(text):
    """Returns the cells of every Markdown table."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    return [[[c.strip() for c in line.split("|")[1:-1]] for line in block] for block in blocks]


@pytest.mark.slow
def test_synthetic_run_and_its_trace(tmp_path):
    said = []
    benchmarking.run(synthetic_config(), said.append, profile=str(tmp_path))
    text = "\n".join(said)
    assert jax.__version__ in text and "float32" in text
    times, speeds, _, speeds_of_two = tables(text)
    assert times[0] == ["", "1", "3"] and [row[0] for row in times[2:]] == ["drafter", "expert"]
    names = [row[0] for row in speeds[2:]]
    assert names == [
        "autoregressive_expert",
        "autoregressive_drafter",
        "spec N=2 token agreement=0",
        "spec N=2 token agreement=1",
        "bild alpha=3 fallback=0.6 N=2 token agreement=0.5",
    ]
    by_name = dict(zip(names, speeds[2:], strict=True))
    assert by_name["autoregressive_expert"][2] == "1.00"
    assert by_name["spec N=2 token agreement=0"][3:5] == ["0.00", "1.00 (1.00)"]
    assert by_name["spec N=2 token agreement=1"][3:5] == ["1.00", "3.00 (3.00)"]
    assert speeds_of_two[-1][-1] == "-"
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_run_of_a_trained_pair(tmp_path):
    pairs.export(tiny_pair.make(), str(tmp_path), {})
    config = tiny_pair.get_config(str(tmp_path))
    config.benchmark = {
        **synthetic_config().benchmark.to_dict(),
        "settings": product(rule="token_v3", alpha=0.3, draft_length=2)
        + product(rule="spec", drafter="lookup", draft_length=2)
        + product(rule="spec", drafter="lookup", otherwise="drafter", draft_length=2),
        "batch_sizes": (8,),  # in which other tests decode: what is compiled is shared
        "num_examples": 3,
    }
    config.task.test_size = 3 * 8
    said = []
    benchmarking.run(config, said.append)
    rows = [row[0] for row in tables("\n".join(said))[1][2:]]
    assert any(text.startswith("| token_v3") for text in said)  # on its own, when it was known
    lookup = "spec over lookup N=2 max_ngram=3 min_ngram=1 token"
    assert rows[-3:-1] == ["token_v3 alpha=0.3 N=2 token", lookup]
    assert rows[-1] == lookup.replace("lookup", "lookup or drafter")


def test_a_case_is_decoded_within_its_limits(tmp_path):
    pairs.export(tiny_pair.make(), str(tmp_path), {})
    config = tiny_pair.get_config(str(tmp_path))
    config.benchmark = synthetic_config().benchmark
    subject = load(config, 2)
    limited = {"rule": "spec", "draft_length": 2, "temperature": 1.0, "expert_top_k": 3}
    own = case({**limited, "drafter_top_p": 0.5}, False, {})
    rows = decoding.rows_of(subject, own, subject.requests)
    assert rows.expert_truncation.top_k.tolist() == [3, 3]
    assert rows.drafter_truncation.top_p.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"benchmark__trials": 0}, "benchmark.trials=0"),
        ({"benchmark__minutes": 0}, "benchmark.minutes=0"),
        ({"benchmark__batch_sizes": (1, 0)}, "benchmark.batch_sizes"),
        ({"synthetic__drafter__vocab_size": 36}, "same vocab_size"),
        ({"benchmark__settings": product(rule="spec", draft_length=2)}, "agreement"),
        ({"benchmark__settings": product(rule="spec", draft_length=2, agreement=1.5)}, "[0, 1]"),
        ({"benchmark__settings": product(method="autoregressive_expert", agreement=1.0)}, "rules"),
        (
            {
                "benchmark__settings": product(
                    rule="spec", draft_length=2, agreement=1.0, temperature=(0.0, 1.0)
                )
            },
            "one temperature",
        ),
        ({"benchmark__settings": ()}, "empty"),
        (
            {
                "benchmark__settings": product(
                    rule="spec", draft_length=2, agreement=1.0, drafter="small"
                )
            },
            "drafter=lookup",
        ),
    ],
)
def test_bad_config_is_one_line(changes, words):
    with pytest.raises(UserError) as error:
        benchmarking.run(synthetic_config(**changes), lambda text: None)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["word_problems", "synthetic", "smollm2", "qwen_pair"])
def test_the_benchmarks_that_come_with_the_project(name):
    path = pathlib.Path(__file__).parents[1] / f"configs/{name}.py"
    config = runpy.run_path(str(path))["get_config"]()
    assert len(benchmarking.read_cases(config)) > 3
    assert config.benchmark.minutes == 10


def test_prompts_that_were_cut_are_told():
    config = synthetic_config()
    subject = load(config, 2)
    assert "cut" not in benchmarking._header(subject)
    first, *others = subject.requests
    shortened = dataclasses.replace(subject, requests=[first._replace(cut=3), *others])
    assert "1 of 2 prompts cut" in benchmarking._header(shortened)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("batch_sizes", value) for value in ("x", {"a": 1}, ())),
        *(("step_tokens", value) for value in ("x", {"a": 1}, ())),
        *(("settings", value) for value in (None, "spec", {"rule": "spec"}, 5, ["spec"])),
        *(("trials", None), ("num_examples", [3])),
    ],
)
def test_a_field_of_another_kind_is_named(name, value):
    config = ml_collections.ConfigDict({**synthetic_config().to_dict()})
    config.benchmark = {**config.benchmark.to_dict(), name: value}
    with pytest.raises(UserError, match=f"^benchmark.{name}"):
        benchmarking.run(config, lambda text: None)


def test_config_without_a_benchmark():
    with pytest.raises(UserError, match="the config lacks benchmark; see configs/synthetic.py"):
        benchmarking.run(ml_collections.ConfigDict(), lambda text: None)
