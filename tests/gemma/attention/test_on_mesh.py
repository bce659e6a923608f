"""Attention on eight simulated devices equals the reference on one."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from gemma.attention import Attention, Target, see


def mesh(batch, model):
    devices = np.asarray(jax.devices()[: batch * model])
    return Mesh(devices.reshape(batch, model), ("batch", "model"))


@pytest.mark.parametrize(
    ("shape", "length", "batch", "heads", "kv_heads"),
    [
        ((2, 4), 150, 2, 8, 4),  # more than one block
        ((1, 8), 24, 2, 8, 2),  # a key/value head serves four devices
        ((2, 4), 24, 3, 12, 6),  # a device has 3 query heads of 2 key/value heads
        ((1, 8), 24, 1, 4, 1),  # heads do not divide: each device does all
    ],
    ids=["divides", "shared", "across", "whole"],
)
def test_devices_share_batch_and_heads(
    problem, same_as_reference, shape, length, batch, heads, kv_heads
):
    given = problem(length, batch=batch, heads=heads, kv_heads=kv_heads)
    attend = Attention.on_mesh(mesh(*shape), "blocked")
    same_as_reference(attend, given, see(9, given.segments(5)), 2.0)


def test_splash_runs_under_a_mesh(problem, same_as_reference):
    given = problem(128, batch=2, heads=4, kv_heads=1)
    attend = Attention.on_mesh(mesh(2, 2), "splash", interpret=True)
    same_as_reference(attend, given, see(40, given.segments(50)), 2.0)


def test_a_mesh_says_what_a_program_is_for():
    assert Target.of_mesh(mesh(1, 1)) == Target("cpu")
    assert Attention.on_mesh(mesh(1, 1)).mesh is None
    assert Attention.on_mesh(mesh(1, 2)).mesh is not None


@pytest.mark.parametrize(
    ("capability", "target"),
    [
        ("8.9", Target("gpu", 128)),
        ("9.0", Target("gpu", 256)),
        ("10.0", Target("gpu", 256)),
        ("gfx942", Target("rocm")),
    ],
)
def test_a_gpus_generation_says_which_heads_cudnn_takes(capability, target):
    """A stand-in for JAX's device: no GPU is here."""
    device = SimpleNamespace(platform="gpu", compute_capability=capability)
    assert Target.of_mesh(SimpleNamespace(devices=np.array([[device]]))) == target
