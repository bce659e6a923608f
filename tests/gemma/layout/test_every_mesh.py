"""Every preset on every mesh: each split divides, and large tensors lie everywhere.

Nothing is built here: JAX computes the parts of each variable on a mesh without
devices. `test_builds.py` asks real models.
"""

import functools
import itertools
import math

import pytest
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from gemma.layout import gemma_layout_map, table
from gemma.lora import lora_settings
from gemma.presets import BUILT_IN

AXES = ("batch", "model")
MESHES = [
    *[(1, 1), (1, 2), (1, 4), (1, 8), (2, 4), (4, 2), (8, 1), (2, 8), (4, 8)],
    (16, 16),
]
LARGE = 1_000_000  # bytes

# rank 6 divides by few meshes; rank 64 makes large factors of both kinds
ADAPTERS = list(itertools.product((6, 64), ("keras", "shared")))


def most_devices(shape, sizes):
    """Try every place of every axis, one axis a dim; None is nowhere."""
    places = [None, *range(len(shape))]
    return max(
        math.prod(
            sizes[axis] for axis, dim in zip(AXES, dims, strict=True) if dim is not None
        )
        for dims in itertools.product(places, repeat=2)
        if (dims[0] is None or dims[0] != dims[1])
        and all(
            dim is None or shape[dim] % sizes[axis] == 0
            for axis, dim in zip(AXES, dims, strict=True)
        )
    )


@pytest.fixture(scope="module")
def check(device_mesh):
    """Hold the layout of shapes on all meshes, once for equal dimensions."""

    @functools.cache
    def hold(config, lora, shapes):
        for mesh in MESHES:
            sizes = dict(zip(AXES, mesh, strict=True))
            layout_map = gemma_layout_map(device_mesh(mesh), config=config, lora=lora)
            abstract = AbstractMesh(mesh, AXES)
            for path, shape, item_bytes in shapes:
                spec = PartitionSpec(*layout_map[path].axes)
                # raises where a split does not divide its dim
                part = NamedSharding(abstract, spec).shard_shape(shape)
                if math.prod(shape) * item_bytes >= LARGE:
                    devices = math.prod(shape) // math.prod(part)
                    assert devices == most_devices(shape, sizes), (path, mesh, spec)

    return hold


@pytest.mark.parametrize("preset", BUILT_IN)
def test_weights_on_ten_meshes(preset, check):
    config = BUILT_IN[preset].config
    shapes = tuple((p, s, 4) for p, s in config.parameter_shapes().items())
    check(config, None, shapes)


@pytest.mark.parametrize("preset", BUILT_IN)
@pytest.mark.parametrize(("rank", "factorisation"), ADAPTERS)
def test_adapters_on_ten_meshes(preset, rank, factorisation, check, adapter_shapes):
    config = BUILT_IN[preset].config
    lora = lora_settings(rank, targets=["*"], factorisation=factorisation)
    factors = adapter_shapes(config, rank, factorisation)
    check(config, lora, tuple((p, s, 4) for p, s in factors.items()))


@pytest.mark.parametrize("preset", BUILT_IN)
def test_the_bytes_lost_are_those_of_the_norms(preset):
    """No kernel of any preset loses a byte on any of the ten meshes."""
    config = BUILT_IN[preset].config
    norms = sum(
        2 * math.prod(shape)
        for path, shape in config.parameter_shapes().items()
        if path.endswith("scale")
    )
    for mesh in MESHES:
        count = math.prod(mesh)
        lost = table(config, mesh, dtype="bfloat16").bytes_lost
        assert lost == norms - norms // count, mesh
