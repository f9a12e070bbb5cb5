"""Every acceptance kernel against the engine's own loop, and its enumerated law against both."""

import functools
import inspect
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import kernels, rules
from speccascade.errors import UserError
from speccascade.kernels import KERNELS
from speccascade.lossy import laws
from speccascade.verify import Uniforms
from speccascade.vocab import WHOLE, Vocab
from tests.kernels import plain

VOCAB, SIZE, BATCH = 5, 4, 400
KNOBS = {
    "medusa_typical": [{"epsilon": 0.3, "delta": 0.6}, {}],
    "vllm_typical": [{"epsilon": 0.3, "delta": 0.6}],
    "sglang_threshold": [{"threshold_single": 0.4, "threshold_acc": 0.7}, {}],
    "trtllm_relaxed": [
        {"delta": 0.3, "k": 2, "begin": 0, "end": 1},
        {"delta": 1.0, "k": 3, "begin": 2, "end": 4},
    ],
    "vllm_relaxed": [
        {"ratio": 0.3, "k": 2, "begin": 0, "end": 1},
        {"ratio": 0.05, "k": 3, "begin": 2, "end": 4},
    ],
    "fly": [{"theta": 0.9, "window": 2}, {"theta": 0.0, "window": 3}],
    "asd": [{"budget": 2.0, "per_value": 0.6, "most": 2.0}, {"budget": 0.0}],
    "cactus": [{"delta": 0.2}, {"delta": 0.0}],
}
slow = pytest.mark.slow
CASES = [(name, i) for name, each in KNOBS.items() for i in range(len(each))]


@functools.cache
def blocks(seed: int = 0):
    """Returns a batch of blocks, half of them greedy, of every length, with numbers and noise."""
    rng = np.random.default_rng(seed)

    def softmax(logits):
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)

    logits = 1.5 * rng.normal(size=(BATCH, SIZE + 1, VOCAB))
    p1 = softmax(logits)
    p = softmax(logits / 0.7)
    q = softmax(logits + rng.normal(size=logits.shape))
    cold = rng.uniform(size=BATCH) < 0.4
    p[cold] = np.eye(VOCAB, dtype=np.float32)[p1[cold].argmax(-1)]
    draft = (rng.uniform(size=(BATCH, SIZE + 1, 1)) > q.cumsum(-1)).sum(-1).clip(0, VOCAB - 1)
    block = kernels.Block(
        draft[:, :SIZE].astype(np.int32),
        rng.integers(0, SIZE + 1, BATCH).astype(np.int32),
        q[:, :SIZE],
        p,
        p1,
    )
    carry = rng.integers(0, 2, BATCH).astype(np.float32)
    shape = (BATCH, SIZE)
    return block, carry, Uniforms(*(rng.uniform(size=s).astype(np.float32) for s in (shape, BATCH)))


def knobs_of(name, i):
    defaults = {key: knob.default for key, knob in KERNELS[name].knobs.items()}
    return {**defaults, **KNOBS[name][i]}


def lifted(name, i):
    return rules.knobs_of(rules.make(name, **KNOBS[name][i]), 2)


def expected(name, i):
    """Returns kept, weights [V] and number of every row of `blocks` by the plain loops."""
    block, carry, noise = blocks()
    found = []
    for b in range(BATCH):
        n = block.length[b]
        rows = [x[b].astype(float).tolist() for x in (block.q[:, :SIZE], block.p, block.p1)]
        q, p, p1 = rows[0][:n], rows[1][: n + 1], rows[2][: n + 1]
        given = block.draft[b, :n].tolist(), q, p, p1, float(carry[b]), noise.accept[b, :n].tolist()
        found.append(plain.KERNELS[name](*given, **knobs_of(name, i)))
    return found


def inverse_cdf(weights, uniform):
    cumulative = np.cumsum(weights)
    return int((cumulative <= uniform * cumulative[-1]).sum())


def read(name, knobs, number, token):
    if name not in ("trtllm_relaxed", "vllm_relaxed"):
        return number
    return {knobs["begin"]: 1.0, knobs["end"]: 0.0}.get(token, number)


def check(kernel, name, i):
    """Raises AssertionError where a kernel is not the plain loop of that name."""
    block, carry, noise = blocks()
    verdict, numbers = kernels.verify(kernel, lifted(name, i), block, carry, noise)
    after = np.asarray(kernels.law(kernel, lifted(name, i), block, carry)[1])
    wrong = 0
    for b, (kept, weights, number) in enumerate(expected(name, i)):
        token = int(verdict.next_token[b])
        if verdict.num_accepted[b] != kept or token != inverse_cdf(weights, noise.token[b]):
            wrong += 1  # float32 beside float64 at an edge
            continue
        np.testing.assert_allclose(after[b, kept], np.array(weights) / sum(weights), atol=1e-5)
        own = read(name, knobs_of(name, i), number, token)
        np.testing.assert_allclose(numbers[b], own, rtol=1e-4, atol=1e-5)
    assert wrong <= 1
    assert len(set(np.asarray(verdict.num_accepted).tolist())) == SIZE + 1


@pytest.mark.parametrize(("name", "i"), CASES)
def test_a_kernel_is_the_engines_loop(name, i):
    check(KERNELS[name], name, i)


MISTAKES = [
    ("medusa_typical", 0, "jnp.log(p + 1e-5)", "jnp.log(p + 1e-2)"),
    ("medusa_typical", 0, "after = best(block.p, vocab)", "after = block.p"),
    ("vllm_typical", 0, "p = block.p[:, :", "p = block.p1[:, :"),
    ("sglang_threshold", 0, "without_draft(block, vocab), block.p)", "block.p[:, :-1], block.p)"),
    ("sglang_threshold", 0, 'p >= knobs["threshold_single"]', 'p > knobs["threshold_acc"]'),
    ("trtllm_relaxed", 0, "[..., 0] < k", "[..., 0] <= k"),
    ("trtllm_relaxed", 0, '* carry[:, None]', "* 1.0"),
    ("trtllm_relaxed", 0, "thinks = [carry]", "thinks = [carry * 0]"),
    ("vllm_relaxed", 0, "thinks[:, :-1]", "thinks[:, :1]"),
    ("vllm_relaxed", 0, 'knobs["ratio"] * top', 'top - knobs["ratio"]'),
    ("fly", 1, "block.length[:, None] - window", "block.length[:, None] - window + 1"),
    ("fly", 1, "range(1, min(window, size))", "range(1, min(window - 1, size))"),
    ("fly", 0, "for _ in range(3)", "for _ in range(4)"),
    ("fly", 0, "1 - missed * missed", "1 - missed"),
    ("asd", 0, "block.length[:, None] - jnp.arange(size)", "size - jnp.arange(size)"),
    ("asd", 0, "spent = carry[:, None] +", "spent ="),
    ("asd", 0, "jnp.cumsum(misses, axis=1)", "misses"),
    ("cactus", 0, "jnp.sqrt(2 * ", "jnp.sqrt("),
    ("cactus", 0, "* scale[..., None]", "* 1.0"),
]


@pytest.mark.parametrize(("name", "i", "old", "new"), MISTAKES)
def test_a_planted_mistake_is_caught(name, i, old, new):
    module = inspect.getmodule(KERNELS[name].judge)
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{module.__name__} has changed: update this mistake's {old!r}"
    copy = types.ModuleType("mistaken")
    exec(compile(source.replace(old, new), "mistaken", "exec"), copy.__dict__)
    rows = {name: row for name, row in vars(copy).items() if isinstance(row, kernels.Kernel)}
    row = next(r for r in rows.values() if r.equation == KERNELS[name].equation)
    with pytest.raises(AssertionError):
        check(row, name, i)


@slow
@pytest.mark.parametrize(("name", "i"), CASES)
def test_the_law_is_what_the_loop_does_over_its_noise(name, i):
    rows, draws = 12, 250
    block, carry, _ = blocks()
    own = jax.tree.map(lambda x: x[:rows], block)
    accepted, after, numbers = map(
        np.asarray, kernels.law(KERNELS[name], lifted(name, i), own, carry[:rows])
    )
    np.testing.assert_allclose(accepted.sum(1), 1, atol=1e-5)
    knobs, rng = knobs_of(name, i), np.random.default_rng(1)
    for b in range(rows):
        n = block.length[b]
        rest = [x[b].astype(float).tolist() for x in (block.q, block.p, block.p1)]
        given = block.draft[b, :n].tolist(), rest[0][:n], rest[1][: n + 1], rest[2][: n + 1]
        counts, seen = np.zeros(SIZE + 1), {}
        for uniforms in rng.uniform(size=(draws, n)).tolist():
            kept, *seen_then = plain.KERNELS[name](*given, float(carry[b]), uniforms, **knobs)
            counts[kept] += 1
            seen[kept] = seen_then
        for kept, (weights, number) in seen.items():
            np.testing.assert_allclose(after[b, kept], np.array(weights) / sum(weights), atol=1e-5)
            then = [read(name, knobs, number, token) for token in range(VOCAB)]
            np.testing.assert_allclose(numbers[b, kept], then, rtol=1e-4, atol=1e-5)
        spread = 6 * np.sqrt(accepted[b] * (1 - accepted[b]) * draws) + 1e-4 * draws
        assert (np.abs(counts - draws * accepted[b]) <= spread).all()


@slow
def test_kernels_on_shards_of_the_vocabulary_decide_as_on_the_whole():
    """Beside the whole vocabulary: two devices with half of it each, as a mesh has it."""
    block, carry, noise = blocks()
    wide = [np.pad(x, ((0, 0), (0, 0), (0, 1))) for x in (block.q, block.p, block.p1)]
    block = kernels.Block(block.draft, block.length, *wide)
    mesh = jax.sharding.Mesh(jax.devices()[:2], "model")
    rows, table = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(None, None, "model")

    def decide(vocab, block, carry, noise):
        return [
            kernels.verify(KERNELS[name], lifted(name, 0), block, carry, noise, vocab)
            for name in KERNELS
        ]

    specs = kernels.Block(rows, rows, table, table, table), rows, rows
    sharded = functools.partial(decide, Vocab("model"))
    sharded = jax.shard_map(sharded, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)
    found = jax.jit(sharded)(block, carry, noise)
    whole = jax.jit(functools.partial(decide, WHOLE))(block, carry, noise)
    for name, (verdict, numbers), (expected, then) in zip(KERNELS, found, whole, strict=True):
        same = (verdict.num_accepted == expected.num_accepted) & (
            verdict.next_token == expected.next_token
        )
        assert same.sum() >= BATCH - 2, name  # sums of another order may turn an edge
        np.testing.assert_allclose(numbers[same], then[same], rtol=1e-5, err_msg=name)


def test_thinking_begins_with_the_prompt():
    knobs = {"begin": 3, "end": 4}
    prompt = jnp.array([[1, 3, 4], [1, 2, 4], [1, 2, 3], [3, 0, 0]])
    length = jnp.array([3, 3, 2, 1])
    began = kernels.begin(KERNELS["trtllm_relaxed"], knobs, prompt, length)
    assert began.tolist() == [1, 0, 0, 1]  # an end in the prompt ends nothing; padding is no prompt
    began = kernels.begin(KERNELS["vllm_relaxed"], knobs, prompt, length)
    assert began.tolist() == [0, 0, 0, 1]  # in vLLM it does
    assert kernels.begin(KERNELS["asd"], {}, prompt, length).tolist() == [0, 0, 0, 0]


def test_every_row_has_a_source_and_a_plain_loop():
    assert set(KERNELS) == set(plain.KERNELS) == set(KNOBS)
    for row in KERNELS.values():
        assert row.equation and inspect.getmodule(row.judge).__doc__


def test_names_and_knobs_are_checked():
    with pytest.raises(UserError, match=r"rule cactus needs delta; its domain is \[0, inf\)"):
        rules.make("cactus")
    with pytest.raises(UserError, match=r"epsilon=1\.0 is outside its domain \[0, 1\)"):
        rules.make("medusa_typical", epsilon=1.0)
    with pytest.raises(UserError, match="has no knob alpha"):
        rules.make("fly", alpha=0.1)


# ---- the law of sequences ----


@functools.cache
def tables(seed: int = 0, greedy: bool = False, vocab: int = 3) -> laws.Tables:
    rng = np.random.default_rng(seed)

    def softmax(logits):
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)

    logits = 1.5 * rng.normal(size=(vocab**2, vocab))
    p, q = softmax(logits), softmax(logits + rng.normal(size=logits.shape))
    if not greedy:
        return laws.Tables(q, p, q, p)
    return laws.Tables(*(np.eye(vocab)[x.argmax(-1)] for x in (q, p)), q, p)


LOSSLESS = [
    ("sglang_threshold", {}, False),
    ("cactus", {"delta": 0.0}, False),
    ("medusa_typical", {}, True),
    ("vllm_typical", {}, True),
    ("fly", {"window": 3}, True),
    ("asd", {"budget": 0.0}, True),
    ("trtllm_relaxed", {"delta": 0.6, "k": 1, "begin": 0, "end": 1}, True),
    ("vllm_relaxed", {"ratio": 0.1, "k": 3, "begin": 2, "end": 0}, True),
    ("vllm_relaxed", {"ratio": 1.0, "k": 3, "begin": 0, "end": 2}, True),
]


@pytest.mark.parametrize(("name", "knobs", "greedy"), LOSSLESS)
def test_where_a_mode_claims_the_experts_law_it_has_it(name, knobs, greedy):
    pair = tables(greedy=greedy)
    exact = laws.expert_law(pair.p, 4, eos=1)
    found, _ = laws.kernel_law(rules.make(name, **knobs), pair, 2, 4, eos=1)
    np.testing.assert_allclose(found, exact, atol=1e-9)


BY_BLOCK = [
    ("vllm_typical", {"epsilon": 0.3, "delta": 0.6}, 0.05),
    ("medusa_typical", {"epsilon": 0.3, "delta": 0.6}, 0.05),
    ("sglang_threshold", {"threshold_single": 0.3}, 0.05),
    ("cactus", {"delta": 0.3}, 0.01),
    ("fly", {"theta": 0.0, "window": 1}, 0.05),
]


@pytest.mark.parametrize(("name", "knobs", "least"), BY_BLOCK)
def test_the_law_of_a_mode_is_that_of_its_blocks(name, knobs, least):
    made = [laws.kernel_law(rules.make(name, **knobs), tables(), n, 3)[0] for n in (1, 2)]
    np.testing.assert_allclose([law.sum() for law in made], 1, atol=1e-9)
    assert laws.distance(*made) > least


# ---- the direct twin ----


def twin_law(name, knobs, pair, size, limit):
    """The law of a process of one expert pass a token: the drafter's token is tested, and what is
    decided stands; only how many tokens were kept in a row is remembered, `size` at most."""
    vocab = pair.q.shape[1]
    contexts = np.arange(vocab**2)
    with jax.enable_x64(True):
        context, token = (x.ravel() for x in np.meshgrid(contexts, np.arange(vocab), indexing="ij"))
        p = np.stack([pair.p[context]] * 2, 1)
        one = np.ones(len(token), np.int32)
        block = kernels.Block(token[:, None].astype(np.int32), one, pair.q[context][:, None], p, p)
        block = jax.tree.map(jnp.asarray, block)
        made = rules.knobs_of(rules.make(name, **knobs), 2)
        tested = kernels.law(KERNELS[name], made, block, jnp.zeros(len(token)))
        block = block._replace(length=0 * one)
        ended = kernels.law(KERNELS[name], made, block, jnp.zeros(len(token)))
    keep = np.asarray(tested[0])[:, 1].reshape(-1, vocab) * pair.q  # [C, V], kept as drafted
    lost = (pair.q - keep)[..., None] * np.asarray(tested[1])[:, 0].reshape(-1, vocab, vocab)
    lost, bonus = lost.sum(1), np.asarray(ended[1])[:, 0].reshape(-1, vocab, vocab)[:, 0]
    states = {((), 0): 1.0}
    for _ in range(limit):
        following = {}
        for (tokens, row), mass in states.items():
            c = int(np.dot((0, 0, *tokens)[-2:], (vocab, 1)))
            for v in range(vocab):
                if row == size:
                    ways = [(0, bonus[c, v])]
                else:
                    ways = [(row + 1, keep[c, v]), (0, lost[c, v])]
                for then, chance in ways:
                    key = (*tokens, v), then
                    following[key] = following.get(key, 0) + mass * chance
        states = following
    found = np.zeros(vocab**limit)
    for (tokens, _), mass in states.items():
        found[int(np.dot(tokens, vocab ** np.arange(limit)[::-1]))] += mass
    return found


@pytest.mark.parametrize(("name", "knobs", "_"), BY_BLOCK[:4])
def test_a_mode_that_looks_at_one_token_is_its_direct_twin(name, knobs, _):
    found, _ = laws.kernel_law(rules.make(name, **knobs), tables(), 2, 4)
    np.testing.assert_allclose(found, twin_law(name, knobs, tables(), 2, 4), atol=1e-9)
    assert laws.distance(found, twin_law(name, knobs, tables(), 1, 4)) > 0.01
