"""The HDF5 files of a preset directory in KerasHub's form, read as arrays.

Turns `model.weights.h5`, or the shards that `model.weights.json` maps, into a source
of arrays under our variable paths. It refuses files that do not hold exactly the model
of their config, and knows no JSON but that map.
"""

from __future__ import annotations

import contextlib
import pathlib
from types import TracebackType
from typing import Self

import h5py
import numpy as np
from etils import epath

from gemma.config import GemmaConfig
from gemma.presets import hdf5, keras_layout
from gemma.presets.errors import PresetFileError
from gemma.presets.keras_config import read_json
from gemma.presets.source import Index, check_whole, local_file, normalise_index

WEIGHTS_FILE = "model.weights.h5"
SHARDED_WEIGHTS_FILE = "model.weights.json"


class KerasWeights:
    """Arrays of `model.weights.h5`, or of the shards that `model.weights.json` maps."""

    def __init__(self, directory: epath.Path, config: GemmaConfig) -> None:
        """Open the files and prove that they hold the whole model and nothing else."""
        self._cleanup = contextlib.ExitStack()
        self._shapes = config.parameter_shapes()
        try:
            found = self._open(directory)
            names = {keras_layout.dataset_name(path): path for path in self._shapes}
            shapes = {names.get(name, name): d.shape for name, d in found.items()}
            check_whole(directory, shapes, self._shapes)
            self._datasets = {names[name]: data for name, data in found.items()}
            self._dtypes = {
                path: hdf5.native_dtype(data) for path, data in self._datasets.items()
            }
        except BaseException:
            self.close()
            raise

    def paths(self) -> frozenset[str]:
        """Return the variable paths."""
        return frozenset(self._shapes)

    def shape(self, path: str) -> tuple[int, ...]:
        """Return the whole shape of a variable."""
        return self._shapes[path]

    def dtype(self, path: str) -> np.dtype:
        """Return the dtype in the file."""
        return self._dtypes[path]

    def read(self, path: str, index: Index | None = None) -> np.ndarray:
        """Return a variable, or the part of it that `index` names."""
        index = normalise_index(index, self._shapes[path])
        return hdf5.read_dataset(self._datasets[path], index)

    def close(self) -> None:
        """Close the files."""
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

    def _open(self, directory: epath.Path) -> dict[str, h5py.Dataset]:
        """Map dataset names to datasets; a single file wins over shards."""
        found: dict[str, h5py.Dataset] = {}
        for name in weight_files(directory):
            path = local_file(directory / name, self._cleanup)
            file = self._cleanup.enter_context(hdf5.open_hdf5(path))
            for full, data in hdf5.datasets(file).items():
                # Keras 2 named the list of layers so; a dropout's seed is no weight.
                full = full.replace("_layer_checkpoint_dependencies/", "layers/", 1)
                if "seed_generator" in full:
                    continue
                if full in found:
                    raise PresetFileError(
                        directory,
                        expected="every variable once",
                        received=f"{full} in several files",
                        fix="fetch the directory again from where it was published",
                    )
                found[full] = data
        return found


def weight_files(directory: epath.Path) -> list[str]:
    """Return the names of the HDF5 files that hold the weights.

    Raises:
        PresetFileError: There are none, or the map names something else.
    """
    if (directory / WEIGHTS_FILE).exists():
        return [WEIGHTS_FILE]
    path = directory / SHARDED_WEIGHTS_FILE
    if not path.exists():
        raise PresetFileError(
            directory,
            expected=f"{WEIGHTS_FILE} or {SHARDED_WEIGHTS_FILE}",
            received="neither",
            fix="fetch the directory again, or build the model with random weights",
        )
    weight_map = read_json(path).get("weight_map")
    names: set[str] = set()
    for value in weight_map.values() if isinstance(weight_map, dict) else [None]:
        for name in value if isinstance(value, list) else [value]:
            if (
                not isinstance(name, str)
                or pathlib.PurePath(name).name != name
                or not name.endswith(".weights.h5")
            ):
                raise PresetFileError(
                    f"{path}, weight_map",
                    expected="names of .weights.h5 files in the same directory",
                    received=repr(name),
                    fix="use a file from a source that you trust",
                )
            names.add(name)
    return sorted(names)
