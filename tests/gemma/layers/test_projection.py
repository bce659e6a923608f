"""Adapters beside a kernel: shapes, scale, float32, merging, misuse."""

import keras
import numpy as np
import pytest

from gemma.layers.projection import Projection
from gemma.lora import pair_shapes

SAME = 1e-5  # float32, sums in another order


@pytest.fixture
def projection():
    def build(equation="btd,ndh->btnh", output_shape=(None, 3, 4), width=(5,), **more):
        layer = Projection(equation, output_shape=output_shape, name="query", **more)
        layer.build((None, None, *width))
        return layer

    return build


def fill(layer, seed=0):
    rng = np.random.default_rng(seed)
    for variable in layer.weights:
        variable.assign(rng.normal(size=variable.shape))


@pytest.mark.parametrize("factorisation", ["keras", "shared"])
def test_a_new_adapter_changes_nothing(projection, factorisation):
    layer, x = projection(), np.ones((1, 2, 5), "float32")
    before = np.asarray(layer(x))
    layer.enable_lora(2, factorisation=factorisation)
    np.testing.assert_array_equal(layer(x), before)
    assert np.asarray(layer.lora_kernel_a.value).any()


@pytest.mark.parametrize(("factorisation", "inputs"), [("keras", 6), ("shared", 1)])
def test_the_first_factor_begins_as_in_the_library_of_its_form(
    projection, factorisation, inputs
):
    keras.utils.set_random_seed(0)
    layer = projection("btd,df->btf", (None, 3), width=(600,))
    layer.enable_lora(50, factorisation=factorisation)
    values = np.abs(layer.lora_kernel_a.value)
    bound = np.sqrt(inputs / 600)
    assert 0.999 * bound < values.max() <= bound
    np.testing.assert_allclose(values.mean(), bound / 2, rtol=0.02)


@pytest.mark.parametrize("factorisation", ["keras", "shared"])
def test_the_merged_kernel_gives_the_same_outputs(projection, factorisation):
    layer = projection()
    layer.enable_lora(2, lora_alpha=3.0, factorisation=factorisation)
    fill(layer)
    x = np.random.default_rng(1).normal(size=(2, 6, 5)).astype("float32")
    merged = np.einsum("btd,ndh->btnh", x, np.asarray(layer.kernel))
    np.testing.assert_allclose(np.asarray(layer(x)), merged, atol=SAME, rtol=SAME)


def test_adapters_are_scaled_by_alpha_over_rank(projection):
    layer, x = projection(), np.ones((1, 1, 5), "float32")
    layer.enable_lora(2, lora_alpha=6.0)
    fill(layer)
    kernel, a, b = (np.asarray(v.value) for v in layer.weights)
    expected = np.einsum("btd,ndh->btnh", x, kernel + 3.0 * a @ b)
    np.testing.assert_allclose(np.asarray(layer(x)), expected, atol=SAME, rtol=SAME)


def test_dropout_is_on_the_adapter_and_in_training_only(projection):
    layer = projection()
    x = np.ones((1, 64, 5), "float32")
    before = np.asarray(layer(x))
    generator = keras.random.SeedGenerator(0)
    layer.enable_lora(2, dropout=0.5, seed_generator=generator)
    np.testing.assert_array_equal(layer(x, training=True), before)  # B is zero
    layer.lora_kernel_b.assign(np.ones((2, 4)))
    np.testing.assert_array_equal(layer(x), layer(x))
    assert np.ptp(np.asarray(layer(x)), axis=1).max() < SAME  # all tokens alike
    assert np.ptp(np.asarray(layer(x, training=True)), axis=1).max() > 0.1


def test_adapters_are_float32_beside_bfloat16(projection):
    layer = projection(dtype="bfloat16")
    layer.enable_lora(2)
    dtypes = [v.dtype for v in layer.weights]
    assert dtypes == ["bfloat16", "float32", "float32"]
    assert layer(np.ones((1, 1, 5))).dtype == "bfloat16"
    assert layer.kernel.dtype == "bfloat16"


def test_only_the_adapter_is_trained(projection):
    layer = projection()
    layer.enable_lora(2)
    names = [v.name for v in layer.trainable_variables]
    assert names == ["lora_kernel_a", "lora_kernel_b"]


@pytest.mark.parametrize(
    ("kernel", "shared", "expected"),
    [
        ((3, 5, 4), False, ((3, 5, 2), (2, 4))),
        ((3, 5, 4), True, ((5, 2), (2, 3, 4))),
        ((5, 7), False, ((5, 2), (2, 7))),
    ],
)
def test_shapes_of_the_factors(kernel, shared, expected):
    assert pair_shapes(kernel, 2, shared=shared) == expected


def test_a_kernel_that_sums_over_heads_has_one_a_for_all_by_nature(projection):
    layer = projection("btnh,nhd->btd", (None, 5), (3, 4))
    layer.enable_lora(2, factorisation="shared")
    assert layer.factorisation == "keras"
    assert [tuple(v.shape) for v in layer.weights] == [(3, 4, 5), (3, 4, 2), (2, 5)]


def test_a_second_adapter_is_refused(projection):
    layer = projection()
    layer.enable_lora(2)
    with pytest.raises(ValueError, match="query has an adapter already"):
        layer.enable_lora(2)


def test_a_layer_without_kernel_is_refused():
    layer = Projection("btx,xy->bty", output_shape=(None, 4), name="ffw_gating")
    with pytest.raises(ValueError, match="ffw_gating must be built before it gets"):
        layer.enable_lora(2)


def test_a_rank_below_one_is_refused(projection):
    with pytest.raises(ValueError, match="rank must be at least 1, received 0"):
        projection().enable_lora(0)
