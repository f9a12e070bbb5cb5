"""What each of several processes runs in `test_hosts.py`, under `scripts/launch.py`.

python -m tests.sharding.hosts_program --name=FUNCTION --argument=PATH
"""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import PartitionSpec as P

from speccascade.errors import UserError
from speccascade.runtime import app
from speccascade.sharding import Layout, hosts, make_mesh

_NAME = flags.DEFINE_string("name", None, "Which function.")
_ARGUMENT = flags.DEFINE_string("argument", None, "What it is given.")
app.define_distributed()


def _placement():
    return Layout(make_mesh({"data": 2, "model": 2})).rows


def basics(_):
    arrays()
    exchange()


def arrays():
    """Arrays get to where they belong and back."""
    assert (jax.process_count(), jax.local_device_count(), jax.device_count()) == (2, 2, 4)
    where = _placement()
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    for names in (P("batch"), P(None, "vocab"), P("batch", "vocab"), P()):
        made = hosts.put({"x": x}, {"x": where.sharding(names, x.shape)})
        own = 4 if len(names) < 1 or names[0] is None else 2  # process 0 has the first rows
        assert {s.index[0].indices(4)[1] for s in made["x"].addressable_shards} <= {own, 4}
        np.testing.assert_array_equal(hosts.gather(made)["x"], x)
        hosts._PIECE = 2 * x.nbytes // 4  # two rows at a time
        found = list(hosts.pieces(made["x"]))
        np.testing.assert_array_equal(np.concatenate(found), x)
        if names != P():
            assert [len(piece) for piece in found] == [2, 2]
    again = hosts.put(made["x"], where.sharding(P("batch"), x.shape))
    np.testing.assert_array_equal(hosts.gather(again * 2), 2 * x)


def exchange():
    """All get what the first says, however long, and differences are noticed."""
    first = hosts.is_first()
    for value in ("", "é" * 3000, {"a": [1, None]}, []):
        assert hosts.from_first(lambda value=value: value if first else 1 / 0) == value
    hosts.check_alike("the same", "thing")
    with hosts.agreed():
        pass
    try:
        hosts.check_alike("one" if first else "other", "checkpoint")
    except UserError as error:
        print(error)


def refuse(_):
    """The second process alone meets a mistake, where the first waits for it."""
    with hosts.agreed():
        if not hosts.is_first():
            raise UserError("my file is missing")


def defect(_):
    """The second process alone has a defect."""
    with hosts.agreed():
        if not hosts.is_first():
            raise ZeroDivisionError("oh")


def alone(_):
    """The second process fails where the first is in another collective."""
    hosts.PATIENCE = 2.0
    ones = hosts.put(np.ones(4), _placement().sharding(P("batch"), (4,)))
    while hosts.is_first():
        jax.block_until_ready(jnp.sum(ones))
        time.sleep(0.1)
    jnp.sum(ones)
    with hosts.agreed():
        raise UserError("nobody hears me")


def endless(path):
    """Both work together until something happens to one of them."""
    with open(f"{path}/{jax.process_index()}", "w") as file:
        file.write(str(os.getpid()))
    ones = hosts.put(np.ones(4), _placement().sharding(P("batch"), (4,)))
    while True:
        jax.block_until_ready(jnp.sum(ones))
        time.sleep(0.05)


def checkpoint(path):
    """Both store a model that lies on the mesh of both, and read it back to another place."""
    from speccascade.workdir import checkpoints  # not at the top: the others need not wait
    from tests import tiny_pair

    pair = tiny_pair.make()
    placed = pair.laid_out(Layout(make_mesh({"data": 2, "model": 2})))
    checkpoints.save_params(path, placed.params["expert"])
    print(placed.hash)
    layout = Layout(make_mesh({"data": 1, "model": 4}))
    where = layout.of("expert", pair.expert).params(pair.expert)
    like = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        pair.params["expert"],
        where,
    )
    with checkpoints.manager(path, read_only=True) as saved:
        _, found, _ = checkpoints.restore(saved, like)
    assert jax.tree.map(lambda x: x.sharding, found) == where
    jax.tree.map(np.testing.assert_array_equal, hosts.gather(found), pair.params["expert"])


def main(argv):
    del argv
    globals()[_NAME.value](_ARGUMENT.value)
    if hosts.is_first():
        print("done")


if __name__ == "__main__":
    app.run(main)
