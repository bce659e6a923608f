"""Arrays of a preset's files under our variable paths, whatever their form.

Turns views of mapped files, already in our order of dims, into copies: whole, in
slices, or straight into an array of the caller's. It refuses to know formats and
names; `keras_weights` and `hf_weights` make the views.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from gemma.presets.mapping import copy_into
from gemma.presets.source import Index, Shapes, WeightSource, normalise_index

_PART_BYTES = 4 << 20
"""Copied by one thread at a time."""
_WORKERS = min(8, os.cpu_count() or 1)


class Stored(Protocol):
    """An array in a file: a view of its bytes, or a dataset that is read in parts."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the whole shape."""

    @property
    def dtype(self) -> np.dtype:
        """Return the dtype of the numbers."""

    def __getitem__(self, index: Index) -> np.ndarray:
        """Return a part, without a copy where the file allows it."""


class FileWeights(WeightSource):
    """Arrays of files that are mapped or open; `cleanup` closes them."""

    def __init__(
        self,
        shapes: Shapes,
        stored: Mapping[str, Stored],
        cleanup: contextlib.ExitStack,
    ) -> None:
        self._shapes = shapes
        self._stored = dict(stored)
        self._cleanup = cleanup
        self._threads: concurrent.futures.Executor | None = None

    def paths(self) -> frozenset[str]:
        """Return the variable paths."""
        return frozenset(self._shapes)

    def shape(self, path: str) -> tuple[int, ...]:
        """Return the whole shape of a variable."""
        return self._shapes[path]

    def dtype(self, path: str) -> np.dtype:
        """Return the dtype in the file."""
        return self._stored[path].dtype.newbyteorder("=")

    def read(self, path: str, index: Index | None = None) -> np.ndarray:
        """Return a variable, or the part of it that `index` names, as a copy."""
        index = normalise_index(index, self._shapes[path])
        sizes = tuple(part.stop - part.start for part in index)
        out = np.empty(sizes, self.dtype(path))
        self._copy(out, path, index)
        return out

    def read_into(self, out: np.ndarray, path: str, index: Index | None = None) -> None:
        """Write a variable, or a part of it, to `out`, rounded to its dtype."""
        self._copy(out, path, normalise_index(index, self._shapes[path]))

    def close(self) -> None:
        """Close the files; arrays that were read stay valid."""
        self._stored = {}
        self._cleanup.close()

    def _copy(self, out: np.ndarray, path: str, index: Index) -> None:
        """Copy large parts on several threads: numpy and reading let others run."""
        stored = self._stored[path]
        if out.nbytes < _PART_BYTES or _WORKERS < 2:
            copy_into(out, stored[index])
            return
        if self._threads is None:
            pool = concurrent.futures.ThreadPoolExecutor(_WORKERS)
            self._threads = self._cleanup.enter_context(pool)
        parts = [
            self._threads.submit(lambda o, i: copy_into(o, stored[i]), out[part], where)
            for part, where in _split(out.shape, index, out.nbytes)
        ]
        for part in parts:
            part.result()


def _split(
    shape: tuple[int, ...], index: Index, size: int
) -> Iterator[tuple[Index, Index]]:
    """Yield parts of an array, and where they stand in the file's.

    The array is cut along its longest dim but the last, whose numbers stand together.
    """
    longest = max(range(len(shape) - 1), key=shape.__getitem__, default=0)
    count = min(shape[longest], math.ceil(size / _PART_BYTES))
    edges = [shape[longest] * number // count for number in range(count + 1)]
    for start, stop in zip(edges, edges[1:], strict=False):
        part, where = [slice(None)] * len(shape), list(index)
        part[longest] = slice(start, stop)
        first = index[longest].start
        where[longest] = slice(first + start, first + stop)
        yield tuple(part), tuple(where)
