"""One safetensors file from a stranger, seen as named arrays.

Turns the header into views of the file's bytes, after every claim in it was checked
against the size of the file: no gap, no overlap, nothing behind the last tensor. It
refuses to know what the tensors mean, and copies none.

Source: the format's description, github.com/huggingface/safetensors.
"""

from __future__ import annotations

import math
import pathlib
from typing import Any

import ml_dtypes
import numpy as np

from gemma.presets.errors import PresetFileError
from gemma.presets.json_file import MAX_JSON_BYTES, parse_json
from gemma.presets.mapping import MappedFile
from gemma.presets.signatures import check_signature

_DTYPES = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "BOOL": np.dtype(np.bool_),
} | {
    f"{kind.upper()}{8 * size}": np.dtype(f"<{kind}{size}")
    for kind, sizes in {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8)}.items()
    for size in sizes
}
_METADATA = "__metadata__"
_PREFIX_BYTES = 8
_MAX_DIMS = 8
"""The product of a million sizes would take minutes."""


def open_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Map the name of every tensor to a read-only view of its numbers.

    Raises:
        PresetFileError: The file is missing, cut off, something else, or claims
            what its size belies.
    """
    check_signature(path, b"", kind="a safetensors file")
    file = MappedFile(path)
    header, start = read_header(file)
    arrays: dict[str, np.ndarray] = {}
    end = 0
    entries = {name: _entry(path, name, value) for name, value in header.items()}
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2]):
        dtype, shape, (first, last) = entry
        if first != end or last - first != math.prod(shape) * dtype.itemsize:
            _refuse(path, name, f"{dtype} {shape} from byte {end} on", [first, last])
        arrays[name] = file.array(start + first, dtype, shape, name=name)
        end = last
    if start + end != file.size:
        _refuse(path, "the end", f"a file of {start + end} bytes", file.size)
    return arrays


def read_header(file: MappedFile) -> tuple[dict[str, Any], int]:
    """Return the entries of the tensors and the byte where the numbers begin.

    Raises:
        PresetFileError: The file has no header, or a longer one than any model needs.
    """
    kind = "a whole safetensors file"
    if file.size < _PREFIX_BYTES:
        _refuse(file.path, "header", kind, f"{file.size} bytes")
    prefix = file.array(0, np.dtype("<u8"), (1,), name="header")
    length, room = int(prefix[0]), file.size - _PREFIX_BYTES
    if length > min(room, MAX_JSON_BYTES):
        _refuse(file.path, "header", kind, f"a header of {length} bytes in {room}")
    content = file.array(_PREFIX_BYTES, np.dtype("u1"), (length,), name="header")
    header = parse_json(content.tobytes(), subject=f"{file.path}, header")
    header.pop(_METADATA, None)
    return header, _PREFIX_BYTES + length


def _entry(
    path: pathlib.Path, name: str, value: object
) -> tuple[np.dtype, tuple[int, ...], tuple[int, int]]:
    """Return dtype, shape and the bytes from and to which a tensor lies."""
    if not isinstance(value, dict):
        _refuse(path, name, "an object with dtype, shape and data_offsets", value)
    kind, shape = value.get("dtype"), value.get("shape")
    if not isinstance(kind, str) or kind not in _DTYPES:
        _refuse(path, name, "a dtype that numpy has", kind)
    offsets = value.get("data_offsets")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        _refuse(path, name, "a shape and two offsets", [shape, offsets])
    return _DTYPES[kind], tuple(shape), (offsets[0], offsets[1])


def _are_sizes(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= _MAX_DIMS
        and all(
            isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 63
            for size in value
        )
    )


def _refuse(path: pathlib.Path, name: str, expected: str, received: object) -> None:
    raise PresetFileError(
        f"{path}, {name}",
        expected=expected,
        received=str(received)[:200],
        fix="fetch the file again from where it was published",
    )
