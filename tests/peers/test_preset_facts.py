"""Our table of presets says what KerasHub's own says."""

import os

import pytest

from gemma.presets import BUILT_IN

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def published():
    """Import KerasHub, which brings TensorFlow, only where its tests run."""
    os.environ["KERAS_BACKEND"] = "jax"
    from keras_hub import models

    return {**models.GemmaBackbone.presets, **models.Gemma3Backbone.presets}


@pytest.mark.parametrize("name", [n for n, p in BUILT_IN.items() if p.handle])
def test_handle_and_parameter_count_are_those_of_keras_hub(name, published):
    theirs = published[name]
    assert BUILT_IN[name].handle == theirs["kaggle_handle"]
    assert BUILT_IN[name].parameter_count == theirs["metadata"]["params"]
