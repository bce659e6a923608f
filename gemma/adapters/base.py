"""A hash that tells one base from another, in float32 or bfloat16, in any files.

Turns a function that reads parts of variables into one line of text. It reads a few
thousand numbers, so it costs the same for 2B and 27B, on one chip or on many, and
refuses to know files, devices and how a variable is split.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import ml_dtypes
import numpy as np

from gemma.config import GemmaConfig

ALGORITHM = "central8-bfloat16-sha256"
"""Part of every hash: another way to make one gets another name."""

EDGE = 8
"""Entries of the central block along every dim, where the dim has as many."""

Read = Callable[[str, tuple[slice, ...]], np.ndarray]
"""Returns the part of a variable that an index names."""

_HASH = re.compile(f"{ALGORITHM}:[0-9a-f]{{64}}")


def base_hash(config: GemmaConfig, read: Read) -> str:
    """Return `ALGORITHM:<64 hex digits>` for the base whose variables `read` reads.

    SHA-256 over every variable in the order of its path: the path, the shape as in
    `(4, 32, 8)`, and the bytes of the central block, up to 8 entries along every dim
    from (dim - 8) // 2 on, each rounded to bfloat16 (little-endian, last dim fastest).
    Rounding makes a float32 and a bfloat16 copy of the same weights one base, but no
    float16 copy: float16 has fewer exponents than bfloat16, and rounding twice is not
    rounding once. Every kernel of every layer gives up to 512 entries: two trainings
    that agree in all of them to 8 bits are not told apart.

    Args:
        config: Dimensions of the base.
        read: Called once for every variable path.
    """
    digest = hashlib.sha256()
    for path, shape in sorted(config.parameter_shapes().items()):
        values = np.asarray(read(path, central_block(shape)))
        rounded = values.astype(ml_dtypes.bfloat16)
        digest.update(f"{path} {shape}\n".encode())
        digest.update(np.ascontiguousarray(rounded).view("<u2").tobytes())
    return f"{ALGORITHM}:{digest.hexdigest()}"


def central_block(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the index of the block in the middle of a variable."""
    sizes = [min(dim, EDGE) for dim in shape]
    starts = [(dim - size) // 2 for dim, size in zip(shape, sizes, strict=True)]
    return tuple(
        slice(start, start + size) for start, size in zip(starts, sizes, strict=True)
    )


def is_base_hash(value: object) -> bool:
    """Return whether a value has the form of a hash of a base."""
    return isinstance(value, str) and _HASH.fullmatch(value) is not None
