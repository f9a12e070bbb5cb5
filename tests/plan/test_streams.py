"""Traffic of vocabulary-wide arrays in a program whose bytes are counted by hand.

V is 1000: an array f32[2,1000] is 8,000 bytes. The text has the form of XLA's for TPU.
"""

from speccascade.plan.streams import Traffic, traffic

TEXT = """HloModule jit_run, entry_computation_layout={()->f32[2]{0}}

%fused_take (param_0.1: s32[2], param_1.1: f32[2,3,1000]) -> f32[2,1000] {
  %param_1.1 = f32[2,3,1000]{2,1,0} parameter(1)
  %param_0.1 = s32[2]{0} parameter(0)
  ROOT %gather.1 = f32[2,1000]{1,0} gather(%param_1.1, %param_0.1), offset_dims={1}
}

%fused_put (param_0.2: f32[2,3,1000], param_1.2: f32[2,1000]) -> f32[2,3,1000] {
  %param_0.2 = f32[2,3,1000]{2,1,0} parameter(0)
  %param_1.2 = f32[2,1000]{1,0} parameter(1)
  %bitcast.1 = f32[2,1,1000]{2,1,0} bitcast(%param_1.2)
  ROOT %put.1 = f32[2,3,1000]{2,1,0} dynamic-update-slice(%param_0.2, %bitcast.1)
}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{} parameter(0)
  %b = f32[]{} parameter(1)
  ROOT %sum = f32[]{} add(%a, %b)
}

%drafts (p: (f32[2,3,1000])) -> (f32[2,3,1000]) {
  %p = (f32[2,3,1000]{2,1,0}) parameter(0)
  %qs = f32[2,3,1000]{2,1,0} get-tuple-element(%p), index=0
  %w = bf16[1000,8]{1,0} constant({...})
  %logits = f32[2,1000]{1,0:T(2,128)S(1)} fusion(%w), kind=kOutput, calls=%fused_product
  %total = f32[2]{0} reduce(%logits), dimensions={1}, to_apply=%add
  %put = f32[2,3,1000]{2,1,0} fusion(%qs, %logits), kind=kLoop, calls=%fused_put
  ROOT %t = (f32[2,3,1000]{2,1,0}) tuple(%put)
}

%block (p.1: (f32[2,3,1000])) -> (f32[2,3,1000]) {
  %p.1 = (f32[2,3,1000]{2,1,0}) parameter(0)
  %while.1 = (f32[2,3,1000]{2,1,0}) while(%p.1), condition=%more, body=%drafts
  %q = f32[2,3,1000]{2,1,0} get-tuple-element(%while.1), index=0
  %i = s32[2]{0} constant({0, 1})
  %row = f32[2,1000]{1,0:T(2,128)S(1)} fusion(%i, %q), kind=kCustom, calls=%fused_take
  %copy-start.1 = (f32[2,3,1000]{2,1,0:T(2,128)S(1)}, f32[2,3,1000]{2,1,0}, u32[]) copy-start(%q)
  %copy-done.1 = f32[2,3,1000]{2,1,0:T(2,128)S(1)} copy-done(%copy-start.1)
  %chunks = f32[2,4,256]{2,1,0} pad(%row)
  ROOT %t.1 = (f32[2,3,1000]{2,1,0}) tuple(%q)
}

ENTRY %main () -> f32[2] {
  %start = (f32[2,3,1000]{2,1,0}) constant({...})
  ROOT %while.2 = (f32[2,3,1000]{2,1,0}) while(%start), condition=%more.1, body=%block
}
"""


def test_traffic_by_depth():
    row, chunks = 2 * 1000 * 4, 2 * 4 * 256 * 4
    outside, block, draft = traffic(TEXT, 1000)
    assert outside == Traffic(0, 0)
    # Logits are written, summed and read to be put down on the chip; what is put down is one row.
    assert draft == Traffic(hbm=row, chip=3 * row)
    # A gather reads what it takes; a copy reads one memory and writes the other; chunks are wide.
    assert block == Traffic(hbm=row + 3 * row + chunks, chip=row + 3 * row + row)


def test_weights_and_other_sizes_are_not_counted():
    assert traffic(TEXT, 2000)[1:] == [Traffic(0, 0)] * 2
