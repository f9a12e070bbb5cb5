"""Hand-made rows of a sweep, in the shape in which evaluation writes them."""

from speccascade.evaluate.jobs import QUALITY, TEACHER_FORCED, TIMING, Job, teacher_forced
from speccascade.inference.methods import ORACLE
from speccascade.inference.reading import setting
from speccascade.inference.setting import Setting, digest

PROVENANCE = {
    "task": "gsm_symbolic",
    "pair": "p0",
    "tokenizer": "t0",
    "numerics": "jax, cpu",
    "decoding": "1",
}


def identity(job: Job, **provenance) -> dict:
    """The fields that tell a row from others."""
    fields = {**vars(job), **job.setting.fields(), **PROVENANCE, **provenance}
    del fields["setting"]
    return {"key": digest(fields), **fields}


def quality(
    entry: dict, split: str, scores: list[float], rejection=0.2, compute=None, **provenance
) -> dict:
    """A quality row with the given scores."""
    chosen = setting(entry)
    job = Job(QUALITY, chosen, split, len(scores))
    by_token = chosen.verifier == "token"
    return {
        **identity(job, **provenance),
        "quality": sum(scores) / len(scores),
        "quality_ci": [0.0, 1.0],
        "tokens_per_expert_call": 2.5 if chosen.method.in_blocks else None,
        "rejection_rate": rejection if by_token else None,
        "tv_mean": rejection if by_token else None,
        "deferral_rate": None,
        "drafter_calls": 1,
        "middle_calls": 0,
        "expert_calls": 1,
        "tokens": 1,
        "multiply_adds_per_token": compute,
        "seconds": 0.1,
        "aggregate": "mean",
        "scores": scores,
    }


def timing(entry: dict, split: str, ms: list[float], expert_ms: list[float], **provenance) -> dict:
    """A timing row of answers of ten tokens each, as older versions wrote it."""
    chosen = setting(entry)
    job = Job(TIMING, chosen, split, len(ms), trials=3)
    speedup = sum(expert_ms) / sum(ms)
    return {
        **identity(job, **{"machine": "m0", **provenance}),
        "ms_per_token": sum(ms) / (10 * len(ms)),
        "expert_ms_per_token": sum(expert_ms) / (10 * len(ms)),
        "speedup": speedup,
        "speedup_ci": [speedup - 0.05, speedup + 0.05],
        "ms": ms,
        "generated": [10] * len(ms),
        "expert_ms": expert_ms,
        "expert_generated": [10] * len(ms),
    }


def forced(chosen: Setting, split: str, num_examples: int) -> dict:
    """A teacher-forced row: a rule between the models, or an oracle of three points."""
    oracle = chosen.method == ORACLE
    deferral, found = ([0.0, 0.5, 1.0], [0.2, 0.7, 0.6]) if oracle else (0.25, 0.3)
    return {
        **identity(Job(TEACHER_FORCED, chosen, split, num_examples)),
        "positions": 10,
        "quality": found,
        "quality_ci": [[0.1, 0.8]] * 3 if oracle else [0.1, 0.8],
        "deferral_rate": None if chosen.rule == "spec" else deferral,
        **({} if oracle else {"rejection_rate": 0.2}),
    }


def sweep(*points: tuple) -> tuple[list[dict], dict]:
    """Rows and config of points: entry, validation and test scores, relative latency or None."""
    rows, entries = [], []
    for entry, validation, test, latency in points:
        entries.append(entry)
        for split, scores in {"validation": validation, "test": test}.items():
            rows.append(quality(entry, split, scores))
            if latency is not None:
                rows.append(timing(entry, split, [10.0 * latency] * 2, [10.0] * 2))
    for split, count in {"validation": len(points[0][1]), "test": len(points[0][2])}.items():
        for chosen in teacher_forced(map(setting, entries)):
            rows.append(forced(chosen, split, count))
    config = {
        "evaluate": {
            "settings": entries,
            "splits": {"validation": len(points[0][1]), "test": len(points[0][2])},
            "timing": {"num_examples": 2, "trials": 3},
        }
    }
    return rows, config


EXPERT = {"method": "autoregressive_expert"}
DRAFTER = {"method": "autoregressive_drafter"}


def speculative(rule: str, draft_length: int = 3, **fields) -> dict:
    """An entry of a speculative method."""
    return {"rule": rule, "draft_length": draft_length, **fields}
