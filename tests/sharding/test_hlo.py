"""The reader of compiled programs: on the texts of CPU and TPU, and on programs compiled here."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from speccascade.sharding import hlo, make_mesh

# As XLA writes it for TPU, shortened.
TPU = """\
HloModule jit_run, is_scheduled=true, input_output_alias={ {0}: (1, {}, may-alias), \
{1}: (3, {}, must-alias) }, entry_computation_layout={...}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%fused (x: bf16[8,128]) -> bf16[32,128] {
  %x = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.7 = bf16[32,128]{1,0:T(8,128)(2,1)} all-gather(%x), \
replica_groups=[2,4]<=[8], dimensions={0}
}

%inner (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[]{:T(128)}, f32[4]{0:T(128)}) parameter(0)
  %all-reduce-start.2 = (f32[4]{0:T(128)}, f32[16,3]{1,0:T(8,128)}) all-reduce-start(%y, %z), \
replica_groups=mesh['data'=4,'model'=8] {'data':(2)2,'model'}, to_apply=%add, \
metadata={op_name="jit(run)/while/body/psum"}
  %f = bf16[32,128]{1,0} fusion(%x), kind=kCustom, calls=%fused
  ROOT %t = (s32[]{:T(128)}, f32[4]{0:T(128)}) tuple(%i, %done)
}

%cond (p: (s32[], f32[4])) -> pred[] {
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}

%outer (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  ROOT %w.1 = (s32[]{:T(128)}, f32[4]{0}) while(%p), condition=%cond, body=%inner
}

ENTRY %main (w: f32[4,2], c: f32[8,3], i: s32[], k: bf16[2,2]) -> (f32[8,3], bf16[2,2]) {
  %w = f32[4,2]{1,0:T(4,128)} parameter(0), sharding={replicated}
  %c = f32[8,3]{1,0:T(8,128)} parameter(1)
  %i = s32[]{:T(128)} parameter(2)
  %k = bf16[2,2]{1,0:T(2,128)(2,1)} parameter(3)
  %ag = (f32[4,2]{1,0}, f32[16,2]{1,0}) all-gather-start(%w), replica_groups={{0,1,2,3}}
  %agd = f32[16,2]{1,0} all-gather-done(%ag)
  %cp = (f32[8,3]{1,0}, f32[8,3]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%c)
  ROOT %w.2 = (f32[8,3]{1,0}, bf16[2,2]{1,0}) while(%t), condition=%cond, body=%outer
}
"""


def test_a_tpus_program():
    gather, reduce, whole, permute = hlo.collectives(TPU)
    assert (gather.kind, gather.arrays) == ("all-gather", (hlo.Array("bf16", (32, 128)),))
    assert gather.bytes == 8192 and gather.group == 4 and gather.loops == ("outer", "inner")
    assert reduce.kind == "all-reduce" and reduce.bytes == 4 * (4 + 48) and reduce.group == 16
    assert reduce.op_name == "jit(run)/while/body/psum" and reduce.loops == ("outer", "inner")
    assert whole.arrays == (hlo.Array("f32", (16, 2)),) and not whole.in_loop
    assert permute.arrays == (hlo.Array("f32", (8, 3)),) and permute.group is None
    assert gather.has_size([128]) and not gather.has_size([8192])
    assert str(whole) == "all-gather f32[16,2] (128 bytes) over 4 devices, once"


def test_what_is_overwritten():
    assert hlo.aliased(TPU) == [hlo.Array("f32", (8, 3)), hlo.Array("bf16", (2, 2))]


def test_sizes_in_bytes():
    sizes = {"pred": 6, "s8": 6, "bf16": 12, "f32": 24, "s4": 3, "f8e4m3fn": 6}
    assert {kind: hlo.Array(kind, (2, 3)).bytes for kind in sizes} == sizes


def test_programs_compiled_here():
    mesh = make_mesh({"data": 2, "model": 4})
    sharded = functools.partial(jax.shard_map, mesh=mesh)

    @functools.partial(jax.jit, donate_argnums=1)
    @functools.partial(sharded, in_specs=(P(None, "model"), P("data")), out_specs=(P(), P("data")))
    def run(x, y):
        def turn(_, y):
            return y + jax.lax.psum(x.sum() * y, "model")

        everyone = jax.lax.psum(jnp.max(x, axis=1), "model")
        return jax.lax.pmax(everyone, "data"), jax.lax.fori_loop(0, 9, turn, y)

    x, y = jnp.ones((5, 12)), jnp.ones((6, 7))
    text = run.lower(x, y).compile().as_text()
    found = {(c.arrays[0].shape, c.group, len(c.loops)) for c in hlo.collectives(text)}
    assert ((5,), 4, 0) in found and ((3, 7), 4, 1) in found
    assert hlo.aliased(text) == [hlo.Array("f32", (3, 7))]


def test_a_gathered_axis_is_seen():
    mesh = make_mesh({"model": 8})
    whole = jax.NamedSharding(mesh, P())

    @jax.jit
    def run(x):
        return jax.lax.with_sharding_constraint(x, whole)

    x = jax.device_put(jnp.ones((3, 40)), jax.NamedSharding(mesh, P(None, "model")))
    (found,) = hlo.collectives(run.lower(x).compile().as_text())
    assert found.kind == "all-gather" and found.has_size([40]) and not found.in_loop
