"""A source of weights that quantizes them while they are read.

Turns a source of float arrays into one of integers and scales, part by part: what
stands in memory as floats is the part of a tensor that is being read. It refuses to
know files, devices and sharding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gemma.presets.source import Index, WeightSource, normalise_index
from gemma.quantized.grid import (
    BLOCK,
    SCALE_DTYPE,
    VALUE_DTYPES,
    Quantization,
    block_size,
    quantize,
    quantized_shapes,
)
from gemma.quantized.names import block_axis, part_paths, weight_path

_PART = 1 << 22
"""Weights that stand in memory as floats at a time."""


class QuantizedWeights(WeightSource):
    """Integers and scales of every kernel and of the embedding; norms as they are.

    Args:
        source: The float arrays; closed with this one.
        quantization: Grid of the integers.
    """

    def __init__(self, source: WeightSource, quantization: Quantization) -> None:
        self._source = source
        self._quantization = quantization
        self._kind = ""
        self._kept: dict[tuple, np.ndarray] = {}

    def paths(self) -> frozenset[str]:
        """Return the paths of the parts, and of what is not quantized."""
        return frozenset(
            part
            for path in self._source.paths()
            for part in part_paths(path, self._quantization)
        )

    def shape(self, path: str) -> tuple[int, ...]:
        """Return the whole shape of a part."""
        weight, part = weight_path(path)
        shape = self._source.shape(weight)
        if part is None:
            return shape
        shapes = quantized_shapes(shape, self._quantization, block_axis(weight))
        return shapes[part == "scales"]

    def dtype(self, path: str) -> np.dtype:
        """Return the dtype of a part."""
        weight, part = weight_path(path)
        if part is None:
            return self._source.dtype(weight)
        if part == "scales":
            return SCALE_DTYPE
        return VALUE_DTYPES[self._quantization]

    def read(self, path: str, index: Index | None = None) -> np.ndarray:
        """Return a part, or the part of it that `index` names."""
        weight, part = weight_path(path)
        if part is None:
            return self._source.read(path, index)
        index = normalise_index(index, self.shape(path))
        axis = block_axis(weight)
        size = block_size(self._source.shape(weight)[axis])
        stored = self.shape(path)[axis] * size // self._source.shape(weight)[axis]
        wanted = index[axis]
        blocks = slice(wanted.start // stored, -(-wanted.stop // stored))
        floats = _replaced(index, axis, slice(blocks.start * size, blocks.stop * size))
        found = self._scales(weight, floats) if part == "scales" else None
        if found is None:
            found = self._quantize(weight, floats)[part == "scales"]
        first = blocks.start * stored
        within = slice(wanted.start - first, wanted.stop - first)
        return found[_replaced((slice(None),) * found.ndim, axis, within)]

    def read_into(self, out: np.ndarray, path: str, index: Index | None = None) -> None:
        """Write a part, or a part of it, to `out`."""
        _, part = weight_path(path)
        if part is None:
            self._source.read_into(out, path, index)
        else:
            out[...] = self.read(path, index)

    def close(self) -> None:
        """Close the float source; arrays that were read stay valid."""
        self._kept.clear()
        self._source.close()

    def _quantize(self, weight: str, index: Index) -> tuple[np.ndarray, np.ndarray]:
        """Read whole blocks and quantize them part by part; the scales are kept."""
        kind = weight.split("/", 1)[1]
        if kind != self._kind:  # scales are asked for before the next kind of weight
            self._kept.clear()
            self._kind = kind
        axis = block_axis(weight)
        rows, rest = index[0], index[1:]
        width = math.prod(part.stop - part.start for part in rest)
        step = max(BLOCK, _PART // max(width, 1) // BLOCK * BLOCK)
        size = block_size(self._source.shape(weight)[axis])
        if axis + len(index) == 0:  # blocks run along the rows: whole ones only
            step = max(size, step // size * size)
        parts = [
            quantize(
                self._source.read(weight, (part, *rest)),
                self._quantization,
                axis,
                size=size,
            )
            for part in _parts(rows, step)
        ]
        values, scales = (np.concatenate(each) for each in zip(*parts, strict=True))
        self._kept[weight, *((s.start, s.stop) for s in index)] = scales
        return values, scales

    def _scales(self, weight: str, index: Index) -> np.ndarray | None:
        """Return kept scales of exactly these blocks: floats are not read twice."""
        return self._kept.get((weight, *((s.start, s.stop) for s in index)))


def _replaced(index: Index, axis: int, part: slice) -> Index:
    changed = list(index)
    changed[axis] = part
    return tuple(changed)


def _parts(rows: slice, step: int) -> Iterator[slice]:
    for start in range(rows.start, rows.stop, step):
        yield slice(start, min(start + step, rows.stop))
