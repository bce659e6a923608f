"""Slices of an array are written once, and only those that this process holds."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gemma.arrays import assemble
from gemma.presets.mapping import aligned_empty, copy_into


def test_each_slice_is_written_once_and_replicas_share_it():
    devices = np.array(jax.devices()[:1]).reshape(1, 1)
    sharding = NamedSharding(Mesh(devices, ("batch", "model")), PartitionSpec("model"))
    expected = np.arange(24, dtype="float32").reshape(6, 4)
    written = []

    def write(out, index):
        written.append((index, out.ctypes.data))
        out[...] = expected[index]

    array = assemble((6, 4), "float32", sharding, write)
    address = array.addressable_shards[0].data.unsafe_buffer_pointer()
    assert written == [((slice(0, 6), slice(0, 4)), address)]
    assert array.sharding == sharding
    np.testing.assert_array_equal(array, expected)


def test_on_a_cpu_the_memory_that_was_written_is_the_array():
    memory = aligned_empty((1 << 10, 1 << 8), np.dtype("float32"))
    memory[...] = 1.0
    assert memory.ctypes.data % 64 == 0
    array = jax.device_put(memory)
    assert array.unsafe_buffer_pointer() == memory.ctypes.data


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", [(1500, 70), (3, 40, 50), (5,), (2, 3), (0, 4)])
def test_turned_values_are_copied_whole_and_rounded(shape, dtype):
    values = np.random.default_rng(0).normal(size=shape).astype("float32")
    axes = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)[-len(shape) :]
    turned = np.ascontiguousarray(values.transpose(axes)).transpose(np.argsort(axes))
    out = np.zeros(shape, jax.numpy.dtype(dtype))
    copy_into(out, turned)
    np.testing.assert_array_equal(out, values.astype(out.dtype))
