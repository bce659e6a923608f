"""A preset in memory: dimensions and random weights, read as from a file.

The engine streams it into its arrays slice by slice, as it does with every preset.
"""

import contextlib
import dataclasses
import functools
import math
import zlib

import numpy as np

from gemma.config import GemmaConfig
from gemma.presets import Preset, open_preset


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomPreset(Preset):
    """A preset without files."""

    def weights(self) -> "RandomWeights":
        """Return the arrays, drawn when they are read."""
        return RandomWeights(self.config)


DRAWN = 2**24  # numbers; a larger array repeats them, or drawing would take minutes


class RandomWeights(contextlib.AbstractContextManager):
    """A `WeightSource` of normal numbers with the deviation of KerasHub's kernels."""

    def __init__(self, config: GemmaConfig) -> None:
        self._shapes = config.parameter_shapes()

    def paths(self) -> frozenset[str]:
        """Return the variable paths."""
        return frozenset(self._shapes)

    def shape(self, path: str) -> tuple[int, ...]:
        """Return the shape of a variable."""
        return self._shapes[path]

    def dtype(self, path: str) -> np.dtype:
        """Return float32."""
        return np.dtype("float32")

    def read(self, path: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Draw a variable; the same numbers every time."""
        values = _drawn(path, self._shapes[path])
        return values.copy() if index is None else values[index]

    def read_into(
        self, out: np.ndarray, path: str, index: tuple[slice, ...] | None = None
    ) -> None:
        """Draw a variable into `out`."""
        out[...] = self.read(path, index)

    def close(self) -> None:
        """Do nothing: there is no file."""

    def __exit__(self, *exception: object) -> None:
        self.close()


@functools.lru_cache(maxsize=1)  # a large array is read slice by slice
def _drawn(path: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.default_rng(zlib.crc32(path.encode()))
    values = random.standard_normal(min(math.prod(shape), DRAWN), "float32")
    values *= 0.02
    return np.resize(values, shape)


def random_preset(config: GemmaConfig) -> RandomPreset:
    """Return a preset of any dimensions."""
    known = open_preset("gemma2_tiny_en")
    facts = {f.name: getattr(known, f.name) for f in dataclasses.fields(known)}
    return RandomPreset(**facts | {"name": "random", "config": config})
