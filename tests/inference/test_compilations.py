"""How many programs XLA compiles, as JAX reports it."""

import jax
import pytest

import speccascade
from speccascade.inference.engine import Engine, prompt_slots
from speccascade.inference.reading import setting
from tests import tiny_pair

HOW = {"rule": "spec", "draft_length": 2}
_compiled: list[str] = []


def _listen(event: str, duration: float, **_) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _compiled.append(event)


@pytest.fixture(scope="module", autouse=True)
def listening():
    jax.monitoring.register_event_duration_secs_listener(_listen)
    yield
    jax.monitoring.unregister_event_duration_listener(_listen)


def compilations(run) -> int:
    """Returns how many programs are compiled while `run()` runs."""
    before = len(_compiled)
    run()
    return len(_compiled) - before


@pytest.fixture(scope="module")
def pair():
    return tiny_pair.make()


def test_compilations_are_counted():
    shape = 12345  # of no other test
    assert compilations(lambda: jax.jit(lambda x: x + 1)(jax.numpy.ones(shape))) >= 1


def test_prompts_of_a_data_set_share_one_program(pair):
    prompts = [[5] * length for length in (3, 17, 1, 40, 33, 26)]
    engine = Engine.build(pair, prompts, max_new_tokens=4)
    chosen = setting(HOW)

    def decode(prompt):
        engine.prepare([chosen], [engine.request(prompt, 0, "it")], [chosen])()

    assert compilations(lambda: decode(prompts[0])) >= 1
    assert compilations(lambda: [decode(prompt) for prompt in prompts]) == 0


def test_calls_with_prompts_of_other_lengths_compile_seldom(pair):
    def answer(letters):
        text = "1" * letters
        assert len(pair.encode_prompts([text])[0]) == letters
        speccascade.generate_text(pair, [text], max_new_tokens=3, method="autoregressive_expert")

    assert compilations(lambda: answer(33)) >= 1
    assert compilations(lambda: [answer(n) for n in (34, 37, 41, 45, 48)]) == 0


def test_prompt_slots():
    slots = [prompt_slots(n) for n in range(1, 8193)]
    assert all(n <= s < n + 16 for n, s in enumerate(slots[:128], 1))
    assert all(n <= s <= 1.25 * n for n, s in enumerate(slots, 1) if n >= 128)
    assert sorted(set(slots[:256])) == [*range(16, 129, 16), 160, 192, 224, 256]
    assert len(set(slots)) == 8 + 6 * 4
