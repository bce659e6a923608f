"""Arrays of a preset's files under our variable paths, whatever their form.

Turns views of mapped files, already in our order of dims, into copies: whole, in
slices, or straight into an array of the caller's. It refuses to know formats and
names; `keras_weights` and `hf_weights` make the views.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from gemma.presets.mapping import copy_into
from gemma.presets.source import Index, Shapes, normalise_index


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


class FileWeights:
    """A `WeightSource` over files; `cleanup` closes them."""

    def __init__(
        self,
        shapes: Shapes,
        stored: Mapping[str, Stored],
        cleanup: contextlib.ExitStack,
    ) -> None:
        self._shapes = shapes
        self._stored = dict(stored)
        self._cleanup = cleanup

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
        copy_into(out, self._stored[path][index])
        return out

    def read_into(self, out: np.ndarray, path: str, index: Index | None = None) -> None:
        """Write a variable, or a part of it, to `out`, rounded to its dtype."""
        index = normalise_index(index, self._shapes[path])
        copy_into(out, self._stored[path][index])

    def close(self) -> None:
        """Close the files; arrays that were read stay valid."""
        self._stored = {}
        self._cleanup.close()

    def __enter__(self) -> Self:
        """Return the source itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        self.close()
