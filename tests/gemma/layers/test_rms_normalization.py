"""The norm's epsilon, seen where inputs are tiny, and in every norm of a model."""

import numpy as np
import pytest

from gemma.layers.rms_normalization import RMSNormalization

TINY = np.full((1, 1, 4), 1e-3, "float32")  # mean square 1e-6, as large as epsilon


def test_epsilon_is_added_to_the_mean_square():
    norm = RMSNormalization(epsilon=1e-6)
    expected = 1e-3 / np.sqrt(1e-6 + 1e-6)  # 0.7071; without epsilon it is 1
    np.testing.assert_allclose(np.asarray(norm(TINY)), expected, rtol=1e-5)


def test_scale_is_an_offset_from_one():
    norm = RMSNormalization(epsilon=0.0)
    norm.build((None, None, 4))
    norm.scale.assign([0.0, 1.0, -1.0, 0.5])
    np.testing.assert_allclose(np.asarray(norm(TINY))[0, 0], [1, 2, 0, 1.5], rtol=1e-5)


def test_bfloat16_is_normalised_in_float32():
    norm = RMSNormalization(epsilon=0.0, dtype="bfloat16")
    x = np.array([[1.0, 256.0]], "float32").astype("bfloat16")
    rms = np.sqrt((1 + 256.0**2) / 2)
    output = np.asarray(norm(x))
    assert output.dtype == "bfloat16"
    np.testing.assert_allclose(output.astype("float32"), [[1 / rms, 256 / rms]], 4e-3)


def test_every_norm_of_a_model_gets_the_models_epsilon(build):
    backbone = build("gemma2", 2, layer_norm_epsilon=0.25)
    norms = [
        layer
        for layer in backbone._flatten_layers()
        if isinstance(layer, RMSNormalization)
    ]
    assert len(norms) == 2 * 4 + 1
    x = np.full((1, 1, 32), 1e-3, "float32")
    for norm in norms:
        gain = 1 + np.asarray(norm.scale.value)
        expected = x * gain / np.sqrt(0.25 + 1e-6)
        np.testing.assert_allclose(np.asarray(norm(x)), expected, rtol=1e-5)


@pytest.mark.parametrize("epsilon", [1e-6, 0.1])
def test_its_configuration_holds_epsilon(epsilon):
    again = RMSNormalization.from_config(RMSNormalization(epsilon).get_config())
    assert again.epsilon == epsilon
