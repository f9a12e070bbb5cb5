"""What is benchmarked: a pair with prompts, shipped or synthetic."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from speccascade import decode, pairs, tasks
from speccascade.benchmark import synthetic
from speccascade.errors import UserError
from speccascade.inference.drafting.lookup import ByLookup
from speccascade.inference.drafting.lookup_or_model import ByLookupOrModel
from speccascade.inference.engine import Engine, Request
from speccascade.inference.reading import Named, setting
from speccascade.inference.setting import ByModel, Setting
from speccascade.inputs import values
from speccascade.models.interface import Params

ROLES = ("drafter", "expert")


class Case(NamedTuple):
    """A way of decoding; `agreement` of a synthetic pair, else None."""

    setting: Setting
    agreement: float | None

    def __str__(self) -> str:
        parts = [self.setting.label, self.setting.choices]
        if self.agreement is not None:
            parts.append(f"agreement={self.agreement:g}")
        return " ".join(part for part in parts if part)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A pair in the shapes in which it is benchmarked.

    Attributes:
      name: for people.
      models: by role; each has of `Model` what decoding asks for.
      params: by role.
      requests: the prompts.
      stop_table: int32 [S, V], where rows end.
      prompt_slots: room for a prompt.
      max_new_tokens: room for an answer.
    """

    name: str
    models: Mapping[str, Any]
    params: Mapping[str, Params]
    requests: Sequence[Request]
    stop_table: np.ndarray
    prompt_slots: int
    max_new_tokens: int

    def at(self, case: Case) -> "Subject":
        """Returns the pair with the parameters with which a case decodes."""
        if case.agreement is None:
            return self
        agreement = {"drafter": case.agreement, "expert": 1.0}
        params = {
            role: {**self.params[role], "agreement": jnp.float32(agreement[role])} for role in ROLES
        }
        return dataclasses.replace(self, params=params)

    def batches(self, batch: int, number: int) -> list[Sequence[Request]]:
        """Returns the first so many batches of its prompts."""
        return [self.requests[i * batch : (i + 1) * batch] for i in range(number)]

    def size(self, role: str) -> int:
        """Returns a model's number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params[role]))


def load(config: ml_collections.ConfigDict, num_prompts: int) -> Subject:
    """Makes the synthetic pair of `config.synthetic`, or loads the one of `config.pair`.

    Raises:
      UserError: the pair or the task is not as it must be.
    """
    room = config.benchmark.max_new_tokens
    if "synthetic" in config:
        return _synthetic(config.synthetic, room, num_prompts)
    pair = pairs.load(config.pair)
    if pair.drafter is None:
        raise UserError(f"pair {pair.name} has no drafter, and a benchmark times both its models")
    task = tasks.make(config.task, pair.chat)
    examples = task.examples("test", num_prompts)
    if len(examples) < num_prompts:
        raise UserError(
            f"the test split has {len(examples)} examples of {num_prompts}; lower "
            "benchmark.num_examples or benchmark.batch_sizes"
        )
    fitted = pair.fit_prompts([example.prompt for example in examples], room)
    engine = Engine.build(pair, [prompt.ids for prompt in fitted], room, task.stop_strings)
    requests = [
        engine.request(p.ids, example.id, f"the prompt of test example {example.id}", p.cut)
        for p, example in zip(fitted, examples, strict=True)
    ]
    return Subject(
        name=pair.name,
        models={role: pair.models[role] for role in ROLES},
        params=pair.params,
        requests=requests,
        stop_table=engine.stop_table,
        prompt_slots=engine.prompt_slots,
        max_new_tokens=engine.max_new_tokens,
    )


def _synthetic(section: ml_collections.ConfigDict, room: int, num_prompts: int) -> Subject:
    built = {role: synthetic.build(section[role], seed) for seed, role in enumerate(ROLES)}
    models = {role: model for role, (model, _) in built.items()}
    vocab_size = models["expert"].vocab_size
    if models["drafter"].vocab_size != vocab_size:
        raise UserError("synthetic.drafter and synthetic.expert must have the same vocab_size")
    shape = (num_prompts, section.prompt_length)
    prompts = np.random.default_rng(0).integers(vocab_size, size=shape).tolist()
    return Subject(
        name="synthetic",
        models=models,
        params={role: params for role, (_, params) in built.items()},
        requests=[Request(prompt, i, room) for i, prompt in enumerate(prompts)],
        stop_table=decode.stop_table(vocab_size, ()),
        prompt_slots=section.prompt_length,
        max_new_tokens=room,
    )


def case(entry: Mapping[str, Any], has_agreement: bool, named: Named) -> Case:
    """Reads an entry of `config.benchmark.settings`, which is one of an evaluation's.

    For a synthetic pair it also has `agreement`, the probability that drafter and expert agree.
    `named` are the pair's drafters that are no model, see `pairs.named_drafters`.

    Raises:
      UserError: the entry is not as it must be.
    """
    fields = dict(entry)
    agreement = fields.pop("agreement", None) if has_agreement else None
    read = setting(fields, named)
    if not read.method.in_blocks:
        raise UserError(f"benchmark.settings has {read.method}; it takes rules only")
    model = read.drafting.model if isinstance(read.drafting, ByLookupOrModel) else read.drafting
    if model != ByModel() and not isinstance(model, ByLookup):
        raise UserError(
            f"benchmark setting {read}: here the pair's drafter drafts, a lookup, or both; leave "
            "the drafter out, or drafter=lookup, alone or with otherwise=drafter"
        )
    if has_agreement and not 0 <= values.number("agreement", agreement) <= 1:
        raise UserError(f"benchmark setting {read}: agreement={agreement} must be in [0, 1]")
    return Case(read, agreement)
