"""Safetensors files, written tensor by tensor.

Turns names, shapes and a function that returns arrays into one file, or into numbered
files with an index where one would be too large. It never holds more than one tensor,
writes from the first byte to the last so that any storage will do, and refuses to know
what the tensors mean.

Source: the format's description, github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
from etils import epath

from gemma.presets.hf_weights import INDEX_FILE, WEIGHTS_FILE
from gemma.presets.shards import DTYPES, Arrays, checked_array, split_sizes

_NAMES = {"float32": "F32", "bfloat16": "BF16"}


def write_safetensors(
    target: epath.Path,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    dtype: str,
    arrays: Arrays,
    max_shard_bytes: int,
) -> None:
    """Write tensors by name, calling `arrays` once for each of them.

    Raises:
        ValueError: An array has another shape, or a tensor is larger than a shard.
    """
    sizes = {
        name: math.prod(shape) * DTYPES[dtype].itemsize
        for name, shape in shapes.items()
    }
    total = sum(sizes.values())
    if total <= max_shard_bytes:
        _write(target / WEIGHTS_FILE, shapes, dtype, arrays)
        return
    weight_map = {}
    shards = list(split_sizes(sizes, max_shard_bytes))
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write(target / file, {name: shapes[name] for name in names}, dtype, arrays)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (target / INDEX_FILE).write_text(json.dumps(index, indent=2))


def _write(
    path: epath.Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    arrays: Arrays,
) -> None:
    with path.open("wb") as file:
        file.write(_header(shapes, dtype))
        for name, shape in shapes.items():
            values = checked_array(arrays, name, shape)
            values = np.ascontiguousarray(values, DTYPES[dtype])
            file.write(values.reshape(-1).view(np.uint8).data)


def _header(shapes: Mapping[str, tuple[int, ...]], dtype: str) -> bytes:
    """Return length and entries; spaces fill up to a multiple of 8 bytes."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * DTYPES[dtype].itemsize
        entries[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [start, end],
        }
    content = json.dumps(entries).encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content
