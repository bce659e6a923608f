"""KerasHub for the tests that compare with it."""

import os

import pytest


@pytest.fixture(scope="session")
def keras_hub():
    """Import KerasHub, which brings TensorFlow, only where its tests run."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras_hub

    return keras_hub
