import dataclasses

from speccascade.evaluate.jobs import QUALITY, TEACHER_FORCED, TIMING, Job
from speccascade.evaluate.origin import Origin
from speccascade.inference.reading import setting
from speccascade.tasks import Example

ENTRY = {"rule": "bild", "alpha": 2.0, "draft_length": 5, "temperature": 1.0}
COMMON = {"task": "t", "pair": "p", "tokenizer": "k", "numerics": "n"}
EXAMPLES = {
    s: [Example(i, f"{s} {i}?", f"So {i}.", i) for i in range(4)] for s in ("test", "train")
}
ORIGIN = Origin(COMMON, "d", "s", EXAMPLES)
BASE = Job(QUALITY, setting(ENTRY), "test", 3)


def other(origin=ORIGIN, **fields) -> Origin:
    """The origin with other fields, nothing remembered."""
    return dataclasses.replace(origin, _digests={}, **fields)


def changed(**fields) -> Origin:
    """The origin with another second example."""
    rows = list(EXAMPLES["test"])
    rows[1] = dataclasses.replace(rows[1], **fields)
    return other(examples={**EXAMPLES, "test": rows})


def key(job: Job, origin: Origin = ORIGIN) -> str:
    return origin.row(job)["key"]


def test_every_field_changes_the_key():
    others = [
        dataclasses.replace(BASE, kind=TEACHER_FORCED),
        dataclasses.replace(BASE, split="train"),
        dataclasses.replace(BASE, num_examples=4),
        dataclasses.replace(BASE, kind=TIMING, trials=2),
        dataclasses.replace(BASE, kind=TIMING, trials=3),
    ]
    changes = [
        {"rule": "token_v3"},
        {"alpha": 2.5},
        {"fallback": 0.5},
        {"draft_length": 6},
        {"verifier": "block"},
        {"temperature": 0.0},
        {"drafter_top_k": 5},
        {"expert_top_k": 5},
        {"expert_top_p": 0.5},
        {"expert_min_p": 0.5},
        {"seed": 1},
    ]
    others += [dataclasses.replace(BASE, setting=setting({**ENTRY, **c})) for c in changes]
    keys = [key(BASE), *map(key, others)]
    keys += [key(BASE, other(common={**COMMON, name: "other"})) for name in COMMON]
    keys += [key(BASE, other(decoding="other")), key(BASE, other(scoring="other"))]
    assert len(set(keys)) == len(keys)


def test_a_row_is_keyed_by_what_can_change_it_and_no_more():
    kinds = {k: dataclasses.replace(BASE, kind=k) for k in (QUALITY, TEACHER_FORCED, TIMING)}

    def changes(origin):
        return {kind for kind, job in kinds.items() if key(job, origin) != key(job)}

    assert changes(other(scoring="other")) == {QUALITY}
    assert changes(other(decoding="other")) == {QUALITY, TIMING}
    assert changes(changed(prompt="another?")) == set(kinds)
    assert changes(changed(answer="another")) == {TEACHER_FORCED}
    assert changes(changed(reference=7)) == {QUALITY}
    # What lies behind the examples that a row is about is nothing to it.
    more = {**EXAMPLES, "test": EXAMPLES["test"] + EXAMPLES["train"], "validation": []}
    assert changes(other(examples=more)) == set()


def test_answers_outlive_scores_and_sizes():
    name = ORIGIN.answers(BASE)
    assert name == ORIGIN.answers(dataclasses.replace(BASE, num_examples=4))
    assert name == other(scoring="other").answers(BASE) == changed(reference=7).answers(BASE)
    warmer = dataclasses.replace(BASE, setting=setting({**ENTRY, "temperature": 0.5}))
    others = [
        ORIGIN.answers(dataclasses.replace(BASE, split="train")),
        ORIGIN.answers(warmer),
        other(decoding="other").answers(BASE),
        other(common={**COMMON, "pair": "other"}).answers(BASE),
    ]
    assert len({name, *others}) == 5


def test_the_same_setting_written_differently_has_one_key():
    same = setting({**ENTRY, "alpha": 2, "fallback": 0.6, "verifier": "token", "seed": 0})
    assert key(dataclasses.replace(BASE, setting=same)) == key(BASE)
