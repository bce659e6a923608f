"""Whether there is room for checkpoints, and what storage says where there is none.

Turns bytes needed and bytes free, and whatever a save meets, into errors that name
them. It refuses to know what is saved. Object stores are taken to have no end.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from trainer import storage
from trainer.config.errors import RunError, StorageError
from trainer.distribution.processes import may_be_of_peers

_FIX = "free space, a smaller checkpoint.keep_last, or another run.root"


def bytes_of(arrays: Mapping[str, Any]) -> int:
    """Return the bytes of arrays, or of descriptions of them, over all devices."""
    return sum(
        math.prod(array.shape) * array.dtype.itemsize for array in arrays.values()
    )


def free_bytes(directory: epath.PathLike) -> int | None:
    """Return the bytes that may still be written below a directory, None if unknown."""
    if not storage.is_local(directory):
        return None
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return None


def check_room(directory: epath.Path, *, copy_bytes: int, copies: int) -> None:
    """Refuse to start what would end when the disk is full.

    Args:
        directory: Where the copies go; it is there.
        copy_bytes: Size of a checkpoint, at most.
        copies: How many more there will be at a time.

    Raises:
        StorageError: They do not fit.
    """
    free = free_bytes(directory)
    if free is None or free >= copies * copy_bytes:
        return
    raise StorageError(
        key=str(directory),
        expected=f"{_shown(copies * copy_bytes)} free: {copies} checkpoints of "
        f"{_shown(copy_bytes)} at a time",
        received=f"{_shown(free)} free",
        fix=_FIX,
    )


@contextlib.contextmanager
def explained_save(place: epath.Path, needed: int) -> Iterator[None]:
    """Add the bytes needed and free to what a save meets."""
    expected = "a checkpoint that can be written"
    try:
        with explained(place, expected, fix=f"{_FIX}; the one before is whole"):
            yield
    except StorageError as error:
        free = free_bytes(place.parent)
        room = "" if free is None else f", {_shown(free)} free"
        raise StorageError(
            key=error.key,
            expected=error.expected,
            received=f"{error.received}\n{_shown(needed)} needed{room}",
            fix=error.fix,
        ) from error


@contextlib.contextmanager
def explained(
    place: epath.Path,
    expected: str,
    *,
    kind: type[StorageError] = StorageError,
    fix: str = "check free space and rights, or choose another run.root",
) -> Iterator[None]:
    """Turn whatever Orbax and the file system raise into one kind of error.

    `Exception` is the only name for what a damaged file or a full disk causes there.
    What JAX meets in a run of several processes passes: one of them is lost.
    """
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        if may_be_of_peers(error):
            raise
        raise kind(
            key=str(place), expected=expected, received=_first_lines(error), fix=fix
        ) from error


def _first_lines(error: Exception) -> str:
    """Return the beginning of a message: TensorStore appends whole specifications."""
    return f"{type(error).__name__}: " + " ".join(str(error).split())[:600]


def _shown(size: int) -> str:
    return f"{size:,} bytes"
