"""A small state on eight devices, and checkpoints of it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from trainer.checkpoint import Store

METADATA = {"position": {"epoch": 1, "index": 7}, "config": "a1b2c3d4"}
KERNEL = "decoder_block_0/attention/query/lora_kernel_a"


def sharding(rows, columns, *spec):
    devices = np.array(jax.devices()[: rows * columns]).reshape(rows, columns)
    return NamedSharding(Mesh(devices, ("batch", "model")), PartitionSpec(*spec))


def tree(rows=1, columns=8, seed=0):
    split = sharding(rows, columns, "batch", "model")
    whole = sharding(rows, columns)
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        KERNEL: jax.device_put(jax.random.normal(keys[0], (16, 64)), split),
        "slots/momentum": jax.device_put(
            jax.random.normal(keys[1], (8, 32), jnp.bfloat16), split
        ),
        "iteration": jax.device_put(jnp.int32(seed), whole),
        "dropout": jax.device_put(keys[2], whole),
    }


def like(arrays):
    return {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)
        for name, array in arrays.items()
    }


def bits(array):
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(array).tobytes()


def write(directory, *steps, **options):
    with Store(directory, keep_last=9) as store:
        for step in steps:
            store.save(step, tree(seed=step), METADATA, **options)
