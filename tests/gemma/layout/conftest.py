"""Meshes that need no devices, and the shapes of all that lies on them."""

import math

import keras
import pytest

from gemma.adapters import factor_shapes
from gemma.lora import PROJECTIONS


@pytest.fixture(scope="session")
def device_mesh():
    """Name the devices of a mesh, which need not exist while nothing lies on them."""

    def build(shape=(2, 4), names=("batch", "model")):
        devices = [f"cpu:{i}" for i in range(math.prod(shape))]
        return keras.distribution.DeviceMesh(shape, names, devices)

    return build


@pytest.fixture(scope="session")
def adapter_shapes():
    """Map the path of every factor of every projection to its shape."""

    def find(config, rank, factorisation):
        return factor_shapes(
            config, rank=rank, targets=PROJECTIONS, factorisation=factorisation
        )

    return find
