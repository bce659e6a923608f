"""Splash attention compiled for TPUs that are not here: kernels, memory, exchange."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gemma.attention import KEPT, Attention, Target, see

pytestmark = pytest.mark.tpu_aot

MIB = 2**20
COLLECTIVES = r"all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute"


def mesh(shape, name="v5e:2x4"):
    devices = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    return Mesh(np.asarray(devices).reshape(shape), ("batch", "model"))


def compiled(on, length, *, batch=2, heads=16, kv_heads=8, window=None, choice="auto"):
    """Compile the mix and its gradients for packed rows, head_dim 256, a soft cap."""
    attend = Attention.on_mesh(on, choice)

    def both(query, key, value, segments, upstream):
        def mix(*inputs):
            return attend(*inputs, see(window, segments), soft_cap=50.0)

        mixed, back = jax.vjp(mix, query, key, value)
        return mixed, back(upstream)

    def shape(count, dtype="bfloat16"):
        splits = count % on.shape["model"] == 0
        spec = PartitionSpec("batch", None, "model" if splits else None)
        sharding = NamedSharding(on, spec)
        return jax.ShapeDtypeStruct(
            (batch, length, count, 256), dtype, sharding=sharding
        )

    segments = jax.ShapeDtypeStruct(
        (batch, length), "int32", sharding=NamedSharding(on, PartitionSpec("batch"))
    )
    query, key = shape(heads), shape(kv_heads)
    return jax.jit(both).lower(query, key, key, segments, query).compile()


def temporary_bytes(program):
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("shape", [(1, 8), (2, 4)])
@pytest.mark.parametrize("window", [None, 4096])
def test_heads_and_batch_stay_on_their_devices(shape, window):
    on = mesh(shape)
    assert Target.of_mesh(on).platform == "tpu"
    text = compiled(on, 8192, window=window).as_text()
    assert text.count("tpu_custom_call") >= 3  # forward, and two backward
    assert re.findall(COLLECTIVES, text) == []


def test_a_shared_key_value_head_is_added_up_once():
    """Of 4 heads on 8 devices, each serves two: their gradients are summed."""
    text = compiled(mesh((1, 8)), 1024, heads=8, kv_heads=4).as_text()
    assert set(re.findall(COLLECTIVES, text)) == {"all-reduce"}


def test_no_scores_are_kept():
    whole = compiled(mesh((1, 8)), 4096, choice="reference")
    kernels = compiled(mesh((1, 8)), 4096)
    assert temporary_bytes(kernels) < 64 * MIB < temporary_bytes(whole)


@pytest.mark.parametrize("name", ["v6e:2x4", "v5p:2x2x2", "v4:2x2x2"])
def test_other_chips_compile_it_too(name):
    compiled(mesh((1, -1), name), 4096, window=1024)


def test_a_length_that_no_block_divides_is_padded():
    compiled(mesh((1, 8)), 1000, window=512)


@pytest.mark.parametrize(("names", "kernels"), [((), 4), ((KEPT,), 3)])
def test_a_policy_that_saves_the_name_runs_the_forward_kernel_once(names, kernels):
    on = mesh((1, 8))
    attend = Attention.on_mesh(on)
    policy = jax.checkpoint_policies.save_only_these_names(*names)

    def attend_self(x):
        return 2.0 * attend(x, x, x, see(), soft_cap=None)

    def loss(x):
        body = jax.checkpoint(attend_self, policy=policy)
        return jnp.sin(body(jnp.sin(x))).sum().astype("float32")

    heads = NamedSharding(on, PartitionSpec(None, None, "model"))
    x = jax.ShapeDtypeStruct((1, 1024, 8, 128), "bfloat16", sharding=heads)
    text = jax.jit(jax.grad(loss)).lower(x).compile().as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == kernels
