"""Weights as integers in blocks that share a scale, in NumPy.

Turns a weight into its nearest points on a grid of 255 evenly spaced values a block
(`int8`), or of 16 that lie closer around zero (`int4`), and says which shapes that
takes. It refuses to know layers, files and devices; `gemma.quantized.array` has the way
back.
"""

from __future__ import annotations

import math
from typing import Literal, TypeVar, get_args

import ml_dtypes
import numpy as np

Quantization = Literal["int8", "int4"]
Shape = tuple[int, ...]
Steps = TypeVar("Steps")

QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)
BLOCK = 32
"""Weights that share a scale, along the dim that a product sums over."""
ZERO = 7
"""Which of the 16 codes of int4 stands for 0; the others are steps away from it."""
SCALE_DTYPE = np.dtype(ml_dtypes.bfloat16)
VALUE_DTYPES: dict[Quantization, np.dtype] = {
    "int8": np.dtype(np.int8),
    "int4": np.dtype(np.uint8),
}
"""Of the integers; a byte holds two codes of int4."""


def level(step: Steps) -> Steps:
    """Return the value of an int4 step from -7 to 8, as a multiple of the scale.

    s (96 + s^2), or u (0.6 + 0.4 u^2) of the block's largest weight for u = s / 8:
    closer together near 0, where most weights are. Computed, since a table of 16
    values is slow to look up on an accelerator.
    """
    return step * (96 + step * step)


LEVELS = tuple(level(code - ZERO) for code in range(16))

_ENDS = (127, 126, 121, 120, 117, 112)
"""Steps of int8 that a block's largest weight may be. Each of 1 to 16 divides one of
them: weights that had 5 bits in the same blocks once, as the GGUF form Q5_0, lie on the
grid again. 127 does it for Q8_0."""
_PART = 1 << 16  # weights worked on at a time: what comes between stays in the cache


def check_quantization(quantization: str) -> None:
    """Refuse another word than `int8` and `int4`.

    Raises:
        ValueError: It is another.
    """
    if quantization not in QUANTIZATIONS:
        raise ValueError(
            f"quantization must be {' or '.join(map(repr, QUANTIZATIONS))}, "
            f"received {quantization!r}"
        )


def block_size(dim: int) -> int:
    """Return the largest even divisor of a dim up to `BLOCK`.

    Raises:
        ValueError: The dim is odd; two int4 codes share a byte.
    """
    if dim % 2:
        raise ValueError(f"quantized dims must be even, received {dim}")
    return max(n for n in range(2, min(dim, BLOCK) + 1, 2) if dim % n == 0)


def quantized_shapes(
    shape: Shape, quantization: Quantization, axis: int, *, size: int | None = None
) -> tuple[Shape, Shape]:
    """Return the shapes of integers and scales for a weight's shape.

    Args:
        shape: Of the weight.
        quantization: `int4` puts two codes into a byte.
        axis: Negative index of the dim that blocks run along.
        size: Of a block; by default what suits the dim.
    """
    dim = shape[axis]
    stored = dim // 2 if quantization == "int4" else dim
    scales = dim // (size or block_size(dim))
    return _with_dim(shape, axis, stored), _with_dim(shape, axis, scales)


def quantize(
    weight: np.ndarray,
    quantization: Quantization,
    axis: int,
    *,
    size: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return integers (int8, or uint8 with two codes) and bfloat16 scales.

    A scale is rounded before the integers are, so that rounding it costs nothing.

    Args:
        weight: Of any float dtype.
        quantization: Grid.
        axis: Negative index of the dim that blocks run along.
        size: Of a block, for a part of a weight; by default what suits the dim.
    """
    size = size or block_size(weight.shape[axis])
    shapes = quantized_shapes(weight.shape, quantization, axis, size=size)
    after = math.prod(weight.shape[axis:][1:])
    blocks = weight.reshape(-1, size, after)
    integers = np.empty(blocks.shape, np.int8)
    scales = np.empty((len(blocks), 1, after), SCALE_DTYPE)
    step = max(1, _PART // (size * after))
    nearest = _nearest_int4 if quantization == "int4" else _nearest_int8
    for start in range(0, len(blocks), step):
        part = slice(start, start + step)
        found = nearest(_inner(blocks[part]).astype(np.float32))
        integers[part], scales[part] = map(_inner, found)
    stored = _packed(integers) if quantization == "int4" else integers
    return stored.reshape(shapes[0]), scales.reshape(shapes[1])


def _inner(blocks: np.ndarray) -> np.ndarray:
    """Exchange first and last dim if the last is 1: NumPy is slow on short rows."""
    return blocks if min(blocks.shape[0], blocks.shape[2]) > 1 else blocks.T


def _nearest_int8(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put the largest weight of a block on the end of the grid that errs least."""
    largest = np.abs(blocks).max(1, keepdims=True)
    error, scales = np.full_like(largest, np.inf), np.zeros_like(largest)
    for end in _ENDS:
        steps = np.rint(blocks * _inverse(largest / end))
        fitted = _fitted(blocks, steps)
        found = np.square(steps * fitted - blocks).sum(1, keepdims=True)
        scales = np.where(found < error, fitted, scales)
        error = np.minimum(found, error)
    steps = np.rint(blocks * _inverse(scales))
    return np.clip(steps, -_ENDS[0], _ENDS[0]).astype(np.int8), scales


def _fitted(blocks: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the scales under which given steps err least, in bfloat16."""
    power = np.square(steps).sum(1, keepdims=True)
    scales = (blocks * steps).sum(1, keepdims=True) / np.maximum(power, 1)
    return _rounded(scales)


def _nearest_int4(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit the largest weight of a block to the longer side of the grid.

    The scale takes that weight's sign, so that it is always +8 of the steps.
    """
    low, high = blocks.min(1, keepdims=True), blocks.max(1, keepdims=True)
    scales = _rounded(np.where(-low > high, low, high) / LEVELS[-1])
    places = np.rint(blocks * _inverse(scales)).astype(np.int16)
    return _CODES[places + LEVELS[-1] + 8], scales


def _nearest_codes() -> np.ndarray:
    """Return the code of the level nearest to each integer up to the largest level.

    Neighbouring levels are an odd distance apart: no integer lies half-way, and
    rounding to integers first changes nothing. Some places more are for a scale that
    bfloat16 rounded down.
    """
    places = np.arange(-LEVELS[-1] - 8, LEVELS[-1] + 9)
    distances = np.abs(places[:, None] - np.asarray(LEVELS))
    return distances.argmin(1).astype(np.int8)


_CODES = _nearest_codes()


def _packed(codes: np.ndarray) -> np.ndarray:
    """Put the second half of each block [blocks, size, after] above the first."""
    half, unsigned = codes.shape[1] // 2, codes.astype(np.uint8)
    return unsigned[:, :half] | unsigned[:, half:] << 4


def _inverse(scales: np.ndarray) -> np.ndarray:
    """Return 1 / scale, and 0 for a block of zeros."""
    return np.divide(1.0, scales, out=np.zeros_like(scales), where=scales != 0)


def _rounded(scales: np.ndarray) -> np.ndarray:
    return scales.astype(SCALE_DTYPE).astype(np.float32)


def _with_dim(shape: Shape, axis: int, dim: int) -> Shape:
    changed = list(shape)
    changed[axis] = dim
    return tuple(changed)
