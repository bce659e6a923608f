"""HDF5 files of weights as Keras writes them: one, or several with a map.

Turns a function that returns arrays into `model.weights.h5`, or into numbered shards
and `model.weights.json` where one file would be too large. It refuses to know any
other file of a preset.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping

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
    names = keras_layout.dataset_names(config)
    groups = keras_layout.group_names(config)
    order = _keras_order(names)

    def write(file: h5py.File, path: str) -> None:
        values = checked_array(arrays, path, shapes[path])
        _write_dataset(file, names[path], values.astype(DTYPES[dtype], copy=False))

    if sum(sizes.values()) <= max_shard_bytes:
        with h5py.File(folder / WEIGHTS_FILE, "w") as file:
            _write_groups(file, groups)
            for path in order:
                write(file, path)
        return
    weight_map = {}
    shards = list(split_sizes({path: sizes[path] for path in order}, max_shard_bytes))
    for number, paths in enumerate(shards):
        shard = f"model_{number:05}.weights.h5"
        with h5py.File(folder / shard, "w") as file:
            if number == 0:
                _write_groups(file, groups)
            for path in paths:
                write(file, path)
                group = names[path].rsplit("/", 1)[0]
                file[group].attrs["name"] = groups[group.removesuffix("/vars")]
                weight_map[f"/{group}"] = shard
    shard_map = {
        "metadata": {"total_size": float(sum(sizes.values()))},
        "weight_map": weight_map,
    }
    (folder / SHARDED_WEIGHTS_FILE).write_text(json.dumps(shard_map, indent=4))


def split_sizes(sizes: Mapping[str, int], max_shard_bytes: int) -> Iterator[list[str]]:
    """Fill shards in order, starting the next where a variable does not fit.

    Raises:
        ValueError: A variable is larger than a shard.
    """
    shard: list[str] = []
    filled = 0
    for path, size in sizes.items():
        if size > max_shard_bytes:
            raise ValueError(
                f"max_shard_bytes must be at least the {size} bytes of {path}, "
                f"received {max_shard_bytes}"
            )
        if filled + size > max_shard_bytes:
            yield shard
            shard, filled = [], 0
        shard.append(path)
        filled += size
    yield shard


def checked_array(arrays: Arrays, path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array of a variable.

    Raises:
        ValueError: It has another shape.
    """
    values = np.asarray(arrays(path))
    if values.shape != shape:
        raise ValueError(
            f"arrays({path!r}) must have shape {shape}, received {values.shape}"
        )
    return values


def _keras_order(names: Mapping[str, str]) -> list[str]:
    """Return the paths layer by layer, attributes of a block in alphabetical order."""
    by_layer: dict[str, list[str]] = {}
    for path in names:
        by_layer.setdefault(path.split("/", 1)[0], []).append(path)
    return [
        path for paths in by_layer.values() for path in sorted(paths, key=names.get)
    ]


def _write_groups(file: h5py.File, names: dict[str, str]) -> None:
    for group, name in names.items():
        file.create_group(f"{group}/vars".lstrip("/")).attrs["name"] = name


def _write_dataset(file: h5py.File, name: str, values: np.ndarray) -> None:
    if values.dtype == ml_dtypes.bfloat16:
        # HDF5 has no bfloat16: Keras stores two opaque bytes and says what they are.
        dataset = file.create_dataset(name, data=values.view("V2"))
        dataset.attrs["dtype"] = "bfloat16"
    else:
        file.create_dataset(name, data=values)
