import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from trainer.tasks.planning.collectives import Collective, collectives_of

# As libtpu 0.0.42 prints a step's scan over 21 pairs of layers and its loss, shortened.
TPU = """\
HloModule jit_step, is_scheduled=true, num_partitions=8

%cond.1 (p: (s32[], bf16[8,4])) -> pred[] {
  %constant.7 = s32[]{:T(128)} constant(21)
  %p = (s32[]{:T(128)}, bf16[8,4]{1,0:T(8,128)(2,1)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %constant.7), direction=LT, metadata={op_name="x"}
}

%reduce (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[]{:T(128)} add(%a, %b)
}

%body.1 (p.1: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %x = bf16[8,4]{1,0:T(8,128)(2,1)} get-tuple-element(%p.1), index=1
  %all-reduce.1 = bf16[8,4]{1,0:T(8,128)(2,1)S(1)} all-reduce(%x), channel_id=1, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, to_apply=%reduce
  %all-gather-start.1 = (bf16[2,4]{1,0}, bf16[8,4]{1,0}) all-gather-start(%y), channel_id=2, replica_groups=[2,4]<=[8], dimensions={0}
  %all-gather-done.1 = bf16[8,4]{1,0} all-gather-done(%all-gather-start.1)
  ROOT %t = (s32[], bf16[8,4]) tuple(%i.2, %all-reduce.1)
}

%cond.2 (q: (s32[], s32[])) -> pred[] {
  %q = (s32[], s32[]) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %end = s32[] get-tuple-element(%q), index=1
  ROOT %lt.2 = pred[] compare(%j, %end), direction=LT
}

%body.2 (q.1: (s32[], s32[])) -> (s32[], s32[]) {
  %all-reduce.2 = (f32[1024]{0:T(1024)S(1)}, /*index=1*/f32[1,8]{1,0:T(8,128)S(1)}) all-reduce(%a.1, %b.1), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%reduce
}

%scattered (r: f32[8]) -> f32[2] {
  %rs = f32[2]{0} reduce-scatter(%r), replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%reduce
}

ENTRY %main.9 (a: bf16[8,4]) -> bf16[8,4] {
  %while.1 = (s32[], bf16[8,4]) while(%t.1), condition=%cond.1, body=%body.1, metadata={op_name="y"}
  %while.2 = (s32[], s32[]) while(%t.2), condition=%cond.2, body=%body.2
  %all-reduce.3 = f32[] all-reduce(%g), replica_groups=mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_0','axis_1'}, to_apply=%reduce
  %fusion.1 = f32[2]{0} fusion(%f), kind=kCustom, calls=%scattered
  %cp = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%z), source_target_pairs={{0,1},{1,0}}
  %cpd = f32[4]{0} collective-permute-done(%cp)
}
"""  # noqa: E501


def test_loops_multiply_what_is_in_them():
    found = {(c.kind, c.devices): c for c in collectives_of(TPU, unknown_trips=[3])}
    assert found == {
        ("all-reduce", 4): Collective(
            kind="all-reduce", devices=4, count=21, bytes=21 * 8 * 4 * 2
        ),
        ("all-gather", 4): Collective(
            kind="all-gather", devices=4, count=21, bytes=21 * 8 * 4 * 2
        ),
        ("all-reduce", 2): Collective(
            kind="all-reduce", devices=2, count=3, bytes=3 * (1024 + 8) * 4
        ),
        ("all-reduce", 8): Collective(kind="all-reduce", devices=8, count=1, bytes=4),
        ("reduce-scatter", 8): Collective(
            kind="reduce-scatter", devices=8, count=1, bytes=2 * 4
        ),
        ("collective-permute", 0): Collective(
            kind="collective-permute", devices=0, count=1, bytes=4 * 4
        ),
    }


def test_most_bytes_come_first():
    sizes = [c.bytes for c in collectives_of(TPU, unknown_trips=[3])]
    assert sizes == sorted(sizes, reverse=True)


# As libtpu 0.0.42 prints a weight that is gathered while a product runs, shortened.
BESIDE_A_PRODUCT = """\
%started (w: bf16[2,4]) -> bf16[8,4] {
  %all-gather.1 = bf16[8,4]{1,0} all-gather(%w), channel_id=11, replica_groups=[2,4]<=[8], dimensions={0}
}

%product (x: bf16[8,8], w: bf16[2,4]) -> bf16[8,4] {
  %all-gather.2 = bf16[8,4]{1,0} all-gather(%w), channel_id=11, replica_groups=[2,4]<=[8], dimensions={0}
}

%ended (w: bf16[2,4]) -> bf16[8,4] {
  %all-gather.3 = bf16[8,4]{1,0} all-gather(%w), channel_id=11, replica_groups=[2,4]<=[8], dimensions={0}
}

%body (p: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %async-collective-start.1 = bf16[8,4]{1,0} fusion(%a), kind=kCustom, calls=%started
  %fusion.7 = bf16[8,4]{1,0} fusion(%b, %a), kind=kOutput, calls=%product
  %async-collective-done.1 = bf16[8,4]{1,0} fusion(%c), kind=kCustom, calls=%ended
}

ENTRY %main (a: bf16[8,4]) -> bf16[8,4] {
  %while.1 = (s32[], bf16[8,4]) while(%t), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %async-collective-start.2 = bf16[8,4]{1,0} fusion(%a), kind=kCustom, calls=%started
  %async-collective-done.2 = bf16[8,4]{1,0} fusion(%c), kind=kCustom, calls=%ended
}
"""  # noqa: E501


def test_a_collective_beside_a_product_is_counted_once_in_each_round():
    (found,) = collectives_of(BESIDE_A_PRODUCT)
    assert (found.count, found.bytes) == (5 + 1, 6 * 8 * 4 * 2)


# As libtpu 0.0.42 prints a product whose parts go round eight devices, shortened.
ROUND = """\
%cond (p: (bf16[8], u32[])) -> pred[] {
  %end = u32[]{:T(128)} constant(4), metadata={op_name="x"}
  %p = (bf16[8], u32[]{:T(128)}) parameter(0)
  %counter = u32[]{:T(128)} get-tuple-element(%p), index=1
  ROOT %lt = pred[] compare(%counter, %end), direction=LT
}

%body (p.1: (bf16[8], u32[])) -> (bf16[8], u32[]) {
  %two = u32[]{:T(128)} constant(2)
  %p.1 = (bf16[8], u32[]{:T(128)}) parameter(0)
  %x = bf16[8]{0} get-tuple-element(%p.1), index=0
  %counter.1 = u32[]{:T(128)} get-tuple-element(%p.1), index=1
  %there = bf16[8]{0} collective-permute(%x), channel_id=1, source_target_pairs={{0,1},{1,0}}
  %on = bf16[8]{0} collective-permute(%there), channel_id=2, source_target_pairs={{0,1},{1,0}}
  %next = u32[]{:T(128)} add(%counter.1, %two)
  ROOT %tuple = (bf16[8]{0}, u32[]{:T(128)}) tuple(%on, %next)
}

ENTRY %main (a: bf16[8]) -> bf16[8] {
  ROOT %while = (bf16[8], u32[]) while(%t), condition=%cond, body=%body
}
"""  # noqa: E501


def test_an_unrolled_loop_runs_half_as_often():
    (found,) = collectives_of(ROUND)
    assert (found.count, found.bytes) == (2 * 2, 4 * 8 * 2)


# As libtpu 0.0.42 prints a sum that is split over the sequence, shortened.
SCATTERED = """\
%all-reduce-scatter.4.clone.1 (input: bf16[4,64,8]) -> bf16[4,16,8] {
  %input = bf16[4,64,8]{2,1,0} parameter(0)
  %all-reduce.1 = bf16[4,64,8]{2,1,0} all-reduce(%input), channel_id=9, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %dynamic-slice.1 = bf16[4,16,8]{2,1,0} dynamic-slice(%all-reduce.1, %i), dynamic_slice_sizes={4,16,8}
}

ENTRY %main (a: bf16[4,64,8]) -> bf16[4,16,8] {
  ROOT %fusion.1 = bf16[4,16,8]{2,1,0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.4.clone.1
}
"""  # noqa: E501


def test_a_sum_of_which_each_device_keeps_a_slice_is_a_reduce_scatter():
    (found,) = collectives_of(SCATTERED)
    assert found == Collective(
        kind="reduce-scatter", devices=4, count=1, bytes=4 * 16 * 8 * 2
    )


@pytest.fixture(scope="module")
def mesh():
    return Mesh(np.asarray(jax.devices()[:8]).reshape(2, 4), ("batch", "model"))


def test_a_real_scan_is_counted_with_its_length(mesh):
    def sharding(*axes):
        return NamedSharding(mesh, PartitionSpec(*axes))

    def step(x, weights):
        def body(x, weight):
            return jax.lax.with_sharding_constraint(
                jnp.tanh(x @ weight), sharding("batch", "model")
            ), None

        return jax.lax.scan(body, x, weights)[0]

    x = jax.ShapeDtypeStruct((16, 64), "float32", sharding=sharding("batch", "model"))
    weights = jax.ShapeDtypeStruct(
        (5, 64, 64), "float32", sharding=sharding(None, None, "model")
    )
    hlo = jax.jit(step).lower(x, weights).compile().as_text()
    (gathered,) = collectives_of(hlo)
    # every device gathers its half of x, 8 x 64, in each of the 5 layers
    assert gathered == Collective(
        kind="all-gather", devices=4, count=5, bytes=5 * 8 * 64 * 4
    )


def test_a_program_of_one_device_has_none():
    hlo = jax.jit(lambda x: x @ x).lower(jnp.ones((4, 4))).compile().as_text()
    assert collectives_of(hlo) == []
