"""Collectives counted in HLO text, and in a compiled program whose sums are known."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research.capacity.collectives import Collective, array_bytes, group_size, read_collectives, summarize

# A loop of 5 turns around a loop of 3; the inner sums 4 KiB, the outer gathers to 2 KiB in fusions of one
# channel, one of which runs in the inner loop; after them a sum that each device keeps a part of, a start and
# its done, and a permutation.
TEXT = """HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%inner_condition (p.1: (s32[], f32[32,32])) -> pred[] {
  %p.1 = (s32[], f32[32,32]{1,0}) parameter(0)
  %limit = s32[]{:T(128)} constant(3)
  %i = s32[] get-tuple-element(%p.1), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%inner_body (p.2: (s32[], f32[32,32])) -> (s32[], f32[32,32]) {
  %p.2 = (s32[], f32[32,32]{1,0}) parameter(0)
  %value = f32[32,32]{1,0} get-tuple-element(%p.2), index=1
  %all-reduce.1 = f32[32,32]{1,0:T(8,128)} all-reduce(%value), channel_id=1, replica_groups={{0,1},{2,3}}, to_apply=%add
  %fusion.9 = f32[16,32]{1,0} fusion(%p.2), kind=kCustom, calls=%fused_middle.2
  ROOT %pair = (s32[], f32[32,32]{1,0}) tuple(%i, %all-reduce.1)
}

%fused_start (q.1: f32[8,32]) -> (f32[8,32], f32[16,32]) {
  %q.1 = f32[8,32]{1,0} parameter(0)
  ROOT %all-gather.1 = f32[16,32]{1,0} all-gather(%q.1), channel_id=7, replica_groups=[2,2]<=[4], dimensions={0}, frontend_attributes={chain_id="1"}
}

%fused_middle (q.2: f32[8,32]) -> f32[16,32] {
  %q.2 = f32[8,32]{1,0} parameter(0)
  ROOT %all-gather.2 = f32[16,32]{1,0} all-gather(%q.2), channel_id=7, replica_groups=[2,2]<=[4], dimensions={0}
}

%fused_middle.2 (q.3: f32[8,32]) -> f32[16,32] {
  %q.3 = f32[8,32]{1,0} parameter(0)
  ROOT %all-gather.3 = f32[16,32]{1,0} all-gather(%q.3), channel_id=7, replica_groups=[2,2]<=[4], dimensions={0}, frontend_attributes={chain_id="1"}
}

%outer_condition (p.3: (s32[], f32[32,32])) -> pred[] {
  %p.3 = (s32[], f32[32,32]{1,0}) parameter(0)
  ROOT %less.1 = pred[] compare(%a, %b), direction=LT
}

%outer_body (p.4: (s32[], f32[32,32])) -> (s32[], f32[32,32]) {
  %p.4 = (s32[], f32[32,32]{1,0}) parameter(0)
  %fusion.1 = (f32[8,32]{1,0}, f32[16,32]{1,0}) fusion(%p.4), kind=kCustom, calls=%fused_start
  %fusion.2 = f32[16,32]{1,0} fusion(%p.4), kind=kCustom, calls=%fused_middle
  %while.1 = (s32[], f32[32,32]{1,0}) while(%p.4), condition=%inner_condition, body=%inner_body
  ROOT %out = (s32[], f32[32,32]{1,0}) tuple(%i, %while.1)
}

%all-reduce-scatter.1 (input: bf16[8,128]) -> bf16[2,128] {
  %input = bf16[8,128]{1,0} parameter(0)
  %all-reduce.9 = bf16[8,128]{1,0} all-reduce(%input), channel_id=3, replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_0','axis_1'}, to_apply=%add
  ROOT %slice = bf16[2,128]{1,0} dynamic-slice(%all-reduce.9, %z, %z), dynamic_slice_sizes={2,128}
}

ENTRY %main.1 (argument: f32[8]) -> f32[8] {
  %argument = f32[8]{0} parameter(0)
  %while.2 = (s32[], f32[32,32]{1,0}) while(%t), condition=%outer_condition, body=%outer_body, backend_config={"known_trip_count":{"n":"5"}}
  %fusion.3 = bf16[2,128]{1,0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.1
  %all-gather-start.1 = (f32[8]{0}, f32[32]{0}) all-gather-start(%argument), channel_id=4, replica_groups={}, dimensions={0}
  %all-gather-done.1 = f32[32]{0} all-gather-done(%all-gather-start.1)
  %collective-permute.1 = f32[8]{0} collective-permute(%argument), channel_id=5, source_target_pairs={{0,1},{1,2}}
  ROOT %reduce-scatter.1 = f32[8]{0} reduce-scatter(%all-gather-done.1), channel_id=6, replica_groups=[1,4]<=[4], to_apply=%add
}
"""  # noqa: E501


def test_loops_multiply_and_parts_of_one_channel_count_once():
    found, notes = read_collectives(TEXT, 4)
    table = summarize(found)
    assert notes == []
    assert table['all-reduce'] == {'count': 15, 'bytes': 15 * 4096.0, 'sent': 15 * 4096.0}  # 2 x (2 - 1) / 2
    assert table['all-gather'] == {'count': 6, 'bytes': 5 * 2048.0 + 128, 'sent': 5 * 1024.0 + 96}
    assert table['reduce-scatter'] == {'count': 2, 'bytes': 2048.0 + 128, 'sent': 1536.0 + 96}
    assert table['collective-permute'] == {'count': 1, 'bytes': 32.0, 'sent': 32.0}
    assert {each.kind for each in found if each.overlaps} == {'all-gather'}


def test_a_loop_whose_length_is_unknown_counts_once_and_says_so():
    found, notes = read_collectives(TEXT.replace('constant(3)', 'get-tuple-element(%p.1), index=2'), 4)
    assert summarize(found)['all-reduce']['count'] == 5
    assert notes == ['a loop of unknown length counts once']


@pytest.mark.parametrize(
    ('text', 'size'),
    [
        ('replica_groups={{0,1,2},{3,4,5}}', 3),
        ('replica_groups=[2,8]<=[16]', 8),
        ('replica_groups=[4,4]<=[2,8]T(1,0)', 4),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", 4),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=8] {'axis_0','axis_1':(2)4}", 8),
        ('replica_groups={}', 16),
    ],
)
def test_groups_in_every_way_hlo_writes_them(text, size):
    assert group_size(text, 16) == size


def test_bytes_of_arrays():
    assert array_bytes('bf16', '8,128') == 2048
    assert array_bytes('f32', '') == 4
    assert array_bytes('f8e4m3fn', '16') == 16
    assert array_bytes('token', '') == 0


def test_a_ring_sends_all_but_its_own_share():
    assert Collective('all-reduce', 800, 8, 1).sent == 1400
    assert Collective('all-gather', 800, 8, 1).sent == 700


def test_a_compiled_program_with_known_sums():
    """Five layers in a loop, the batch over 8 devices: every layer's gradient of 64 x 64 floats is summed once."""
    mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,), devices=jax.devices()[:8])

    def loss(weights, x):
        return (jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0] ** 2).sum()

    weights = jax.ShapeDtypeStruct((5, 64, 64), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    x = jax.ShapeDtypeStruct((16, 64), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec('data')))
    with jax.set_mesh(mesh):
        text = jax.jit(jax.grad(loss)).lower(weights, x).compile().as_text()
    found, notes = read_collectives(text, 8)
    table = summarize(found)
    assert notes == [] and list(table) == ['all-reduce']
    assert table['all-reduce']['bytes'] == 5 * 64 * 64 * 4
    assert table['all-reduce']['sent'] == 5 * 64 * 64 * 4 * 2 * 7 / 8
