"""What is planned: a config's pair, its mesh and the shapes of a batch."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from speccascade import decode, models, rules
from speccascade.decode import loop, placing
from speccascade.decode.rows import Rows
from speccascade.decode.state import State
from speccascade.errors import UserError
from speccascade.inference.reading import setting
from speccascade.inference.setting import Setting
from speccascade.inputs import values
from speccascade.models.interface import Model
from speccascade.models.memory import local
from speccascade.pairs import ROLES
from speccascade.plan.topology import Topology
from speccascade.rules import Rule
from speccascade.sharding import from_config
from speccascade.sharding.layout import lay

WEIGHTS = ("bfloat16", "int8")
_NUMBERS = ("batch_size", "prompt_length", "max_new_tokens")
_EXAMPLE = "configs/paper/gemma2_2b_9b.py"


class Inputs(NamedTuple):
    """What the decode loop takes, as shapes with shardings; see `decode.loop.run`."""

    decoder: decode.Decoder
    params: dict[str, Any]
    rules: tuple[Rule, ...]
    rows: Rows
    state: State

    @property
    def device_rows(self) -> int:
        """Rows of the batch that one device holds."""
        return local(self.state.last)[0]

    @property
    def device_vocab(self) -> int:
        """Token ids whose logits one device holds, padding included."""
        layout = self.decoder.layout
        return -(-self.decoder.expert.vocab_size // layout.ways(layout.vocab_axis))


@dataclasses.dataclass(frozen=True)
class Subject:
    """A pair in the shapes in which it would run.

    Attributes:
      name: for people.
      models: by role.
      mesh: as configs write it; see `sharding.from_config`.
      setting: the rule, its knobs and N.
      batch_size: B, rows of the whole slice.
      prompt_length: T.
      max_new_tokens: room for an answer.
      weights: one of `WEIGHTS`.
    """

    name: str
    models: dict[str, Model]
    mesh: dict[str, Any]
    setting: Setting
    batch_size: int
    prompt_length: int
    max_new_tokens: int
    weights: str

    def stored_as(self, weights: str) -> "Subject":
        """Returns the same with its models' matrices kept in another way."""
        made = {role: _kept(model, weights) for role, model in self.models.items()}
        return dataclasses.replace(self, models=made, weights=weights)

    @property
    def rule(self) -> Rule:
        """The rule that every row follows."""
        return rules.make(self.setting.rule, **dict(self.setting.knobs))

    @property
    def bonus(self) -> bool:
        """Whether the drafter takes one pass more than it has tokens."""
        return rules.uses_q(self.rule)

    def inputs(self, topology: Topology) -> Inputs:
        """Returns `on` the devices of a slice."""
        return self.on(topology.devices, topology.name)

    def on(self, devices: Sequence[jax.Device], name: str) -> Inputs:
        """Returns the decode loop's arguments on some devices, as shapes.

        Args:
          devices: for the mesh.
          name: what messages call them.

        Raises:
          UserError: mesh or batch do not fit them.
        """
        layout = from_config(self.mesh, devices)
        data = layout.ways(layout.expert.batch)
        if self.batch_size % data:
            raise UserError(
                f"a batch of {self.batch_size} does not divide over the {data} devices along "
                f"{layout.expert.batch} on {name}; give --batch_size a multiple of that"
            )
        decoder = decode.Decoder(
            self.models["expert"],
            decode.ModelDrafter(self.models["drafter"]),
            self.setting.draft_length,
            self.max_new_tokens,
            self.setting.verifier,
            layout=layout,
        )
        loop.check(decoder, (self.rule,))
        params = {role: models.shapes(model) for role, model in self.models.items()}
        params = lay(params, placing.param_shardings(decoder))
        rows = _rows(self.batch_size, self.prompt_length, decoder.expert.vocab_size)
        rows = lay(rows, placing.rows_shardings(decoder, rows))
        state = jax.eval_shape(lambda p, r: loop.prefill(decoder, p, r), params, rows)
        state = lay(state, placing.state_shardings(decoder, state))
        followed = jax.eval_shape(lambda: (self.rule,))
        followed = lay(followed, placing.rule_shardings(decoder, followed))
        return Inputs(decoder, params, followed, rows, state)


def load(
    config: ml_collections.ConfigDict, batch_size: int | None = None, weights: str = "bfloat16"
) -> Subject:
    """Reads what a config says of its pair, without the weights.

    Args:
      config: `models`, `mesh` and `plan`; see configs/paper/gemma2_2b_9b.py.
      batch_size: in place of the config's.
      weights: one of `WEIGHTS`, for both models.

    Raises:
      UserError: the config is not as it must be.
    """
    values.choice("weights=", weights, WEIGHTS)
    values.section("", config, ("models", "mesh", "plan"), _EXAMPLE)
    described = values.section("models", config.models, ROLES, _EXAMPLE)
    values.section("mesh", config.mesh, (), _EXAMPLE)
    section = dict(values.section("plan", config.plan, ["setting"], _EXAMPLE))
    if batch_size is not None:
        section["batch_size"] = batch_size
    for name in _NUMBERS:
        section[name] = values.whole(f"plan.{name}", section.get(name), 1)
    how = setting(values.section("plan.setting", section["setting"]))
    if not how.method.in_blocks:
        raise UserError(f"plan.setting has {how.method}; only a rule's decode loop is planned")
    pair = config.get("pair", {role: role for role in ROLES})
    return Subject(
        name=" -> ".join(str(pair[role]) for role in ROLES),
        models={
            role: _kept(models.build(described[role], f"models.{role}"), weights) for role in ROLES
        },
        mesh=config.mesh.to_dict(),
        setting=how,
        **{name: section[name] for name in _NUMBERS},
        weights=weights,
    )


def _kept(model: Model, weights: str) -> Model:
    kept = {"weight_dtype": "int8"} if weights == "int8" else {"param_dtype": weights}
    return models.build({**models.describe(model), **kept})


def _rows(batch: int, prompt_length: int, vocab_size: int) -> Rows:
    def per_row(dtype, *more):
        return jax.ShapeDtypeStruct((batch, *more), dtype)

    rows = Rows(*(per_row(jnp.int32) for _ in range(9)))
    return rows._replace(
        prompt=per_row(jnp.int32, prompt_length),
        seed=per_row(jnp.uint32, 2),
        temperature=per_row(jnp.float32),
        stop_table=jax.ShapeDtypeStruct((1, vocab_size), jnp.int32),
    )
