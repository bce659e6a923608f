import dataclasses

from tests.trainer.memory_plans import plan_of
from trainer.tasks.planning.estimated_collectives import estimated_collectives

PLAN = plan_of("gemma2_tiny_en", sequence_length=128)


def of(plan, shape):
    return {(c.kind, c.devices): c for c in estimated_collectives(plan, shape)}


def test_one_device_exchanges_nothing():
    assert estimated_collectives(PLAN, (1, 1)) == []


def test_sums_over_model_are_scattered_and_gathered_in_three_passes():
    found = of(PLAN, (1, 8))
    hidden = 16 * 128 * 256 * 2  # tokens x width, bfloat16
    count = 3 * 2 * 4  # passes x products x layers
    gathered, scattered = found["all-gather", 8], found["reduce-scatter", 8]
    assert (gathered.count, gathered.bytes) == (count, count * hidden)
    assert (scattered.count, scattered.bytes) == (count, count * hidden // 8)


def test_sequences_that_do_not_divide_are_summed_whole():
    plan = dataclasses.replace(PLAN, sequence_length=100, remat="none", microbatches=2)
    (summed,) = of(plan, (1, 8)).values()
    count = 2 * 2 * 2 * 4  # microbatches x passes x products x layers
    assert summed.kind == "all-reduce"
    assert summed.bytes == count * 16 * 100 * 256 * 2


def test_weights_are_gathered_over_batch_and_gradients_summed():
    found = of(PLAN, (8, 1))
    gathered, summed = found["all-gather", 8], found["all-reduce", 8]
    kernels = 3 * 256 * 640 + 2 * 4 * 256 * 64 + 2 * 2 * 256 * 64
    # forward and backward; the table once
    assert gathered.count == 2 * 4 * 7 + 1
    assert gathered.bytes == (2 * 4 * kernels + 4096 * 256) * 2
    factors = 4 * (4 * 256 * 8 + 8 * 64 + 2 * 256 * 8 + 8 * 64)
    assert summed.bytes == factors * 4
