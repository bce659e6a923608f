"""Weights on a grid: by hand, against the plain grid, and what it refuses."""

import ml_dtypes
import numpy as np
import pytest

from gemma.quantized.array import QuantizedArray
from gemma.quantized.grid import (
    block_size,
    check_quantization,
    quantize,
    quantized_shapes,
)

AXES = {"kernel of heads": ((4, 64, 8), -2), "kernel": ((64, 6), -2)}
AXES |= {"table": ((10, 96), -1)}


def heavy_tailed(shape, seed=0):
    return np.random.default_rng(seed).standard_t(4, size=shape).astype("float32")


def restored(weight, quantization, axis):
    values, scales = quantize(weight, quantization, axis)
    return np.asarray(QuantizedArray(values, scales, quantization, axis).astype("f4"))


def one_scale_per_channel(weight, quantization, axis):
    """Round to nearest under each output's largest weight: what is to be beaten."""
    largest = {"int8": 127, "int4": 7}[quantization]
    summed = tuple(range(weight.ndim - 1)) if axis == -2 else (-1,)
    scale = np.abs(weight).max(summed, keepdims=True) / largest
    return np.rint(weight / scale) * scale


# u (0.6 + 0.4 u^2) for u = -7/8 ... 8/8, times 1280
LEVELS = [-1015, -792, -605, -448, -315, -200, -97, 0]
LEVELS += [97, 200, 315, 448, 605, 792, 1015, 1280]


def test_int4_holds_its_own_sixteen_values():
    weight = np.tile(LEVELS, 2).astype("float32")[:, None] * 0.25
    values, scales = quantize(weight, "int4", -2)
    assert scales.astype("f4").tolist() == [[0.25]]
    # first half of a block in the low four bits, second half in the high ones
    assert values[:, 0].tolist() == [17 * code for code in range(16)]
    np.testing.assert_array_equal(restored(weight, "int4", -2), weight)


def test_int4_puts_the_longer_side_where_the_largest_weight_is():
    weight = np.tile(LEVELS, 2).astype("float32")[:, None] * -0.5
    assert quantize(weight, "int4", -2)[1].astype("f4").tolist() == [[-0.5]]
    np.testing.assert_array_equal(restored(weight, "int4", -2), weight)


def test_int4_takes_the_nearest_of_its_values():
    weight = heavy_tailed((32 * 64, 3))
    scales = quantize(weight, "int4", -2)[1].astype("f4")[:, None]
    grid = np.asarray(LEVELS) * scales[..., None]  # [blocks, 1, 3, 16]
    blocks = weight.reshape(64, 32, 3)
    nearest = np.abs(blocks[..., None] - grid).min(-1)
    ours = np.abs(restored(weight, "int4", -2).reshape(64, 32, 3) - blocks)
    np.testing.assert_allclose(ours, nearest, atol=1e-6)


def test_int8_holds_its_own_values():
    weight = np.linspace(-127, 127, 32).round().astype("float32")[None] * 0.5
    values, scales = quantize(weight, "int8", -1)
    assert (values.dtype, scales.astype("f4").tolist()) == (np.int8, [[0.5]])
    np.testing.assert_array_equal(restored(weight, "int8", -1), weight)


@pytest.mark.parametrize("shape, axis", AXES.values(), ids=AXES)
def test_int8_is_off_by_little_more_than_half_a_step_of_its_block(shape, axis):
    weight = heavy_tailed(shape)
    error = np.abs(restored(weight, "int8", axis) - weight)
    size = block_size(shape[axis])
    assert shape[axis] % size == 0
    blocks = np.moveaxis(weight, axis, -1).reshape(-1, size)
    errors = np.moveaxis(error, axis, -1).reshape(-1, size)
    # the largest weight is 112 steps or more, and bfloat16 rounds a scale by 2 ** -9
    largest = np.abs(blocks).max(1, keepdims=True)
    assert (errors <= largest * (0.5 / 112 + 2**-8)).all()


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_int8_restores_weights_that_lay_on_a_coarser_grid_in_its_blocks(bits):
    rng = np.random.default_rng(0)
    end = 2 ** (bits - 1)
    steps = rng.integers(-end, end, (256, 5)).clip(-127)
    scales = rng.uniform(0.01, 0.1, (8, 5)).astype("float16").astype("float32")
    weight = (steps.reshape(8, 32, 5) * scales[:, None]).reshape(256, 5)
    error = restored(weight.astype("float32"), "int8", -2) - weight
    plain = one_scale_per_channel(weight, "int8", -2) - weight
    assert np.abs(error).max() <= 2**-8 * np.abs(weight).max()  # scales in bfloat16
    assert np.square(error).mean() < 0.2 * np.square(plain).mean()


@pytest.mark.parametrize("quantization", ["int8", "int4"])
@pytest.mark.parametrize("shape, axis", AXES.values(), ids=AXES)
def test_blocks_are_nearer_than_one_scale_per_channel(quantization, shape, axis):
    weight = heavy_tailed(shape)
    ours = np.square(restored(weight, quantization, axis) - weight).mean()
    plain = one_scale_per_channel(weight, quantization, axis) - weight
    assert ours < 0.8 * np.square(plain).mean()


def test_a_block_of_zeros_stays_zero():
    for quantization in ("int8", "int4"):
        weight = np.zeros((64, 3), "float32")
        weight[:32] = 1.0
        assert not restored(weight, quantization, -2)[32:].any()


def test_parts_of_a_weight_quantize_as_in_the_whole():
    weight = heavy_tailed((4, 96, 80))
    whole = quantize(weight, "int4", -2)
    part = quantize(weight[1:3, 32:64, 5:9], "int4", -2)
    np.testing.assert_array_equal(part[0], whole[0][1:3, 16:32, 5:9])
    np.testing.assert_array_equal(part[1], whole[1][1:3, 1:2, 5:9])


def test_parts_keep_the_blocks_of_the_whole_though_others_would_suit_them():
    weight = heavy_tailed((22 * 17, 3))  # blocks of 22; 22 * 12 rows take 24 alone
    whole = quantize(weight, "int8", -2)
    part = quantize(weight[: 22 * 12], "int8", -2, size=22)
    assert block_size(22 * 12) == 24
    np.testing.assert_array_equal(part[0], whole[0][: 22 * 12])
    np.testing.assert_array_equal(part[1], whole[1][:12])


def test_bfloat16_weights_quantize_as_the_floats_they_are():
    weight = heavy_tailed((64, 4)).astype(ml_dtypes.bfloat16)
    for ours, want in zip(
        quantize(weight, "int4", -2),
        quantize(weight.astype("float32"), "int4", -2),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, want)


def test_blocks_divide_their_dim():
    sizes = {dim: block_size(dim) for dim in (640, 24, 20, 44, 2, 74)}
    assert sizes == {640: 32, 24: 24, 20: 20, 44: 22, 2: 2, 74: 2}


def test_shapes_are_known_before_any_weight():
    assert quantized_shapes((4, 640, 256), "int4", -2) == ((4, 320, 256), (4, 20, 256))
    assert quantized_shapes((100, 640), "int8", -1) == ((100, 640), (100, 20))


def test_odd_dims_are_refused():
    with pytest.raises(ValueError, match="quantized dims must be even, received 33"):
        quantize(np.ones((33, 2), "float32"), "int4", -2)


def test_other_grids_are_refused():
    with pytest.raises(ValueError, match="must be 'int8' or 'int4', received 'int2'"):
        check_quantization("int2")
