"""Numbers that lie in a file, seen as an array without being read.

Turns a file, an offset, a dtype and a shape into a read-only view, and a view in any
order of dims into a copy in ours. Pages of a mapped file are the system's, not this
process's, so a preset never stands in memory twice. It refuses to know formats.
"""

from __future__ import annotations

import math
import pathlib

import numpy as np

from gemma.presets.errors import PresetFileError

_CACHE_LINE = 64
_ROWS = 1024
"""Rows of a block that is turned: their pages still fit a core's page table cache."""


class MappedFile:
    """The bytes of a local file; views stay valid while somebody holds them."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r") if self.size else None

    def array(
        self, offset: int, dtype: np.dtype, shape: tuple[int, ...], *, name: str
    ) -> np.ndarray:
        """Return a view of `shape` that begins `offset` bytes into the file.

        Raises:
            PresetFileError: The file ends before the array does.
        """
        size = math.prod(shape) * dtype.itemsize
        if not 0 <= offset <= offset + size <= self.size:
            raise PresetFileError(
                f"{self.path}, {name}",
                expected=f"{size} bytes from byte {offset} on",
                received=f"a file of {self.size} bytes",
                fix="fetch the file again from where it was published",
            )
        if not size:
            return np.empty(shape, dtype)
        return np.ndarray(shape, dtype, buffer=self._bytes, offset=offset)


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an empty array at a multiple of 64 bytes.

    JAX on a CPU takes such an array as it is and copies every other one.
    """
    size = math.prod(shape) * dtype.itemsize
    content = np.empty(size + _CACHE_LINE, np.uint8)
    start = -content.ctypes.data % _CACHE_LINE
    return content[start : start + size].view(dtype).reshape(shape)


def copy_into(out: np.ndarray, values: np.ndarray) -> None:
    """Copy `values` to `out`, rounded to its dtype.

    Values that stand in another order than ours (transposed, heads split off) are
    turned in blocks of one cache line of `out`: five times as fast as in whole rows.
    """
    width = max(1, _CACHE_LINE // out.itemsize)
    is_turned = values.ndim > 1 and abs(values.strides[-1]) > values.itemsize
    if not is_turned or out.shape[-1] < width:
        np.copyto(out, values, casting="unsafe")
        return
    for first in range(0, out.shape[-2], _ROWS):
        rows = slice(first, first + _ROWS)
        for start in range(0, out.shape[-1], width):
            block = (..., rows, slice(start, start + width))
            np.copyto(out[block], values[block], casting="unsafe")
