"""HDF5 files of weights as Keras writes them: one, or several with a map.

Turns a function that returns arrays into `model.weights.h5`, or into numbered shards
and `model.weights.json` where one file would be too large. It refuses to know any
other file of a preset.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Iterator

import h5py
import ml_dtypes
import numpy as np

from gemma.config import GemmaConfig
from gemma.presets import keras_layout
from gemma.presets.keras_weights import SHARDED_WEIGHTS_FILE, WEIGHTS_FILE

DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}

Arrays = Callable[[str], np.ndarray]


def write_weights(
    folder: pathlib.Path,
    config: GemmaConfig,
    dtype: str,
    arrays: Arrays,
    *,
    max_shard_bytes: int,
) -> None:
    """Write every variable of `config`, calling `arrays` once for each path.

    Raises:
        ValueError: An array has another shape, or a variable is larger than a shard.
    """
    shapes = config.parameter_shapes()
    sizes = {
        path: math.prod(shape) * DTYPES[dtype].itemsize
        for path, shape in shapes.items()
    }
    names = keras_layout.group_names(config)
    if sum(sizes.values()) <= max_shard_bytes:
        with h5py.File(folder / WEIGHTS_FILE, "w") as file:
            _write_groups(file, names)
            for path in _keras_order(config):
                _write_variable(file, path, arrays(path), shapes[path], dtype)
        return
    weight_map = {}
    shards = _split(sizes, _keras_order(config), max_shard_bytes)
    for number, paths in enumerate(shards):
        name = f"model_{number:05}.weights.h5"
        with h5py.File(folder / name, "w") as file:
            if number == 0:
                _write_groups(file, names)
            for path in paths:
                _write_variable(file, path, arrays(path), shapes[path], dtype)
                group = keras_layout.dataset_name(path).rsplit("/", 1)[0]
                file[group].attrs["name"] = names[group.removesuffix("/vars")]
                weight_map[f"/{group}"] = name
    shard_map = {
        "metadata": {"total_size": float(sum(sizes.values()))},
        "weight_map": weight_map,
    }
    (folder / SHARDED_WEIGHTS_FILE).write_text(json.dumps(shard_map, indent=4))


def _keras_order(config: GemmaConfig) -> list[str]:
    """Return the paths layer by layer, attributes of a block in alphabetical order."""
    by_layer: dict[str, list[str]] = {}
    for path in config.parameter_shapes():
        by_layer.setdefault(path.split("/", 1)[0], []).append(path)
    return [
        path
        for paths in by_layer.values()
        for path in sorted(paths, key=keras_layout.dataset_name)
    ]


def _split(
    sizes: dict[str, int], order: list[str], max_shard_bytes: int
) -> Iterator[list[str]]:
    """Fill shards in order, starting the next where a variable does not fit."""
    shard: list[str] = []
    filled = 0
    for path in order:
        if sizes[path] > max_shard_bytes:
            raise ValueError(
                f"max_shard_bytes must be at least the {sizes[path]} bytes of {path}, "
                f"received {max_shard_bytes}"
            )
        if filled + sizes[path] > max_shard_bytes:
            yield shard
            shard, filled = [], 0
        shard.append(path)
        filled += sizes[path]
    yield shard


def _write_groups(file: h5py.File, names: dict[str, str]) -> None:
    for group, name in names.items():
        file.create_group(f"{group}/vars".lstrip("/")).attrs["name"] = name


def _write_variable(
    file: h5py.File, path: str, values: np.ndarray, shape: tuple[int, ...], dtype: str
) -> None:
    values = np.asarray(values)
    if values.shape != shape:
        raise ValueError(
            f"arrays({path!r}) must have shape {shape}, received {values.shape}"
        )
    values = values.astype(DTYPES[dtype], copy=False)
    name = keras_layout.dataset_name(path)
    if dtype == "bfloat16":
        # HDF5 has no bfloat16: Keras stores two opaque bytes and says what they are.
        dataset = file.create_dataset(name, data=values.view("V2"))
        dataset.attrs["dtype"] = "bfloat16"
    else:
        file.create_dataset(name, data=values)
