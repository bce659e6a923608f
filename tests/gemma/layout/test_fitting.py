"""What does not divide moves, to where the most devices share it."""

import keras
import pytest

from gemma.config import Gemma3Config
from gemma.layout import fit, fit_rules, most_devices
from gemma.lora import lora_settings


@pytest.mark.parametrize(
    ("wish", "shape", "expected"),
    [
        (("model", "batch"), (8, 6), ("model", "batch")),
        (("model", "batch", None), (1, 6, 8), (None, "batch", "model")),  # moved
        (("model", "batch", None), (2, 6, 4), (None, "batch", "model")),
        (("model", "batch", None), (1, 6, 6), (None, "batch", None)),  # nowhere to go
        (("model", "batch", None), (1, 7, 8), (None, None, "model")),  # 4 beat 2
        (("model", "batch", None), (4, 7, 8), ("model", None, "batch")),
        (("model", "batch", None), (8, 7, 4), ("model", None, "batch")),
        (("model", "batch", None), (4, 7, 5), ("model", None, None)),
        (("batch", None), (4, 6), ("batch", None)),  # `model` was not wished
        (("model",), (4, 5, 6), ("model", None, None)),
        ((None,), (4, 4), (None, None)),
        ((), (4, 4), (None, None)),
    ],
)
def test_fit_on_2x4(wish, shape, expected):
    assert fit(wish, shape, {"batch": 2, "model": 4}) == expected


def test_an_axis_leaves_the_dim_it_wished_where_both_can_then_be_split():
    # 16 takes either axis, 8 takes `model` alone: `model` leaves the first dim
    assert fit(("model", "batch"), (16, 8), {"batch": 16, "model": 8}) == (
        "batch",
        "model",
    )


def test_axes_beyond_the_wish_take_the_last_dims():
    sizes = {"batch": 2, "model": 4}
    axes = ("batch", "model")
    assert fit(("model",), (8, 6, 8), sizes, axes=axes) == ("model", None, "batch")
    assert fit((None,), (8, 6), sizes, axes=axes) == ("model", "batch")
    assert fit((None,), (6, 6), sizes, axes=axes) == (None, "batch")


def test_an_axis_of_one_device_is_not_added():
    sizes = {"batch": 1, "model": 4}
    assert fit((None,), (8, 8), sizes, axes=("batch", "model")) == (None, "model")


@pytest.mark.parametrize(
    ("shape", "devices"),
    [((8, 6), 8), ((6, 6), 2), ((3, 4), 4), ((3, 16), 4), ((3, 5), 1), ((4,), 4)],
)
def test_most_devices_on_2x4_with_one_axis_a_dim(shape, devices):
    assert most_devices(shape, {"batch": 2, "model": 4}) == devices


def test_keras_cannot_split_a_dim_over_two_axes():
    """Where it can one day, 256 devices can share a factor of rank 8."""
    mesh = keras.distribution.DeviceMesh(
        (2, 4), ("batch", "model"), [f"cpu:{i}" for i in range(8)]
    )
    with pytest.raises(ValueError, match="Invalid axis names for Layout"):
        keras.distribution.TensorLayout((None, ("batch", "model")), mesh)


@pytest.mark.parametrize("factorisation", ["keras", "shared"])
def test_only_large_adapters_are_split_further_than_their_rule(factorisation):
    config = Gemma3Config(
        vocabulary_size=64,
        num_layers=3,
        num_query_heads=8,
        num_key_value_heads=1,
        hidden_dim=512,
        intermediate_dim=64,
        head_dim=64,
    )
    sizes = {"batch": 2, "model": 4}
    small, large = (
        fit_rules(
            config,
            sizes,
            lora_settings(rank, targets=["query"], factorisation=factorisation),
        )
        for rank in (8, 1024)
    )
    pattern = next(p for p in small if "query/lora_kernel_a" in p)
    assert small[pattern] == ("model",)
    expected = {"keras": ("model", None, "batch"), "shared": ("model", "batch")}
    assert large[pattern] == expected[factorisation]
