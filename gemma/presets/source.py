"""What every reader of weights offers, and the proof that none is missing.

Turns a directory of some form into arrays under our variable paths, one slice at a
time. It refuses to know devices, sharding and the forms themselves.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from etils import epath

from gemma.presets.errors import PresetFileError

Index = tuple[slice, ...]
Shapes = Mapping[str, tuple[int, ...]]

OTHER_CONFIG = "use a directory whose config.json belongs to its weights"
"""What to do where the weights are not those of the config beside them."""


class WeightSource(Protocol):
    """Arrays of a preset by variable path; closes as a context manager."""

    def paths(self) -> frozenset[str]:
        """Return the variable paths, those of `GemmaConfig.parameter_shapes`."""

    def shape(self, path: str) -> tuple[int, ...]:
        """Return the whole shape of a variable."""

    def dtype(self, path: str) -> np.dtype:
        """Return the dtype in the file, bfloat16 included."""

    def read(self, path: str, index: Index | None = None) -> np.ndarray:
        """Return a variable, or the part of it that `index` names, in its dtype."""

    def read_into(self, out: np.ndarray, path: str, index: Index | None = None) -> None:
        """Write a variable, or a part of it, to `out`, rounded to its dtype."""

    def close(self) -> None:
        """Close the files; arrays that were read stay valid."""

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


def check_whole(subject: object, found: Shapes, expected: Shapes, *, fix: str) -> None:
    """Refuse what lacks a variable, has one of another shape, or one too many.

    Args:
        subject: What was looked at.
        found: Shapes that it has.
        expected: Shapes that it should have.
        fix: What to do about any difference.

    Raises:
        PresetFileError: Names the first of them and how many there are.
    """
    if missing := [path for path in expected if path not in found]:
        raise PresetFileError(
            subject,
            expected=f"all {len(expected)} variables",
            received=f"none for {_some(missing)}",
            fix=fix,
        )
    if surplus := [path for path in found if path not in expected]:
        raise PresetFileError(
            subject,
            expected=f"only the {len(expected)} variables of its config",
            received=f"also {_some(surplus)}",
            fix=fix,
        )
    for path, shape in expected.items():
        if tuple(found[path]) != tuple(shape):
            raise PresetFileError(
                f"{subject}, {path}",
                expected=f"shape {tuple(shape)}",
                received=f"shape {tuple(found[path])}",
                fix=fix,
            )


def check_each_once(written: Sequence[str], paths: Collection[str]) -> None:
    """Prove that what is written are the variables of a source, each of them once.

    Raises:
        PresetFileError: Names the first that is not.
    """
    counts = collections.Counter(written)
    for path in sorted(counts.keys() | set(paths)):
        times = counts[path]
        if times != (path in paths):
            raise PresetFileError(
                path,
                expected="to be read once" if path in paths else "no such variable",
                received=f"{times} arrays for it",
                fix="build the model from the config of the preset",
            )


def normalise_index(index: Index | None, shape: tuple[int, ...]) -> Index:
    """Return one slice with start and stop for every dim; steps must be 1.

    Raises:
        ValueError: The index has too many dims, or a step.
    """
    index = () if index is None else index
    if len(index) > len(shape):
        raise ValueError(
            f"index must have at most {len(shape)} slices for shape {shape}, "
            f"received {len(index)}"
        )
    filled = (*index, *(slice(None) for _ in shape[len(index) :]))
    result = []
    for part, dim in zip(filled, shape, strict=True):
        start, stop, step = part.indices(dim)
        if step != 1:
            raise ValueError(f"index must have steps of 1, received {part}")
        result.append(slice(start, max(start, stop)))
    return tuple(result)


def inside(directory: epath.Path, name: str) -> epath.Path:
    """Return the path of a preset's file, wherever links may lead to.

    A link may stay within the directory or lead to the store of the Hugging Face
    cache, in which every file of a snapshot is a link into `blobs` beside it.

    Raises:
        PresetFileError: A link leads out of the preset.
    """
    path = directory / name
    if "://" in os.fspath(path):
        return path
    home = pathlib.Path(directory).resolve()
    homes = [home]
    if home.parent.name == "snapshots":
        homes.append(home.parents[1] / "blobs")
    target = pathlib.Path(path).resolve()
    if not any(target.is_relative_to(home) for home in homes):
        raise PresetFileError(
            path,
            expected="a file of the preset itself",
            received=f"a link to {target}",
            fix="copy the file there if you trust it, or pass the directory it is in",
        )
    return path


def local_file(path: epath.Path, cleanup: contextlib.ExitStack) -> pathlib.Path:
    """Return `path` itself, or a copy of a remote file that `cleanup` removes."""
    if "://" not in os.fspath(path):
        return pathlib.Path(path)
    folder = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="gemma-"))
    target = pathlib.Path(folder) / path.name
    with path.open("rb") as remote, target.open("wb") as local:
        shutil.copyfileobj(remote, local, length=1 << 24)
    return target


def _some(paths: list[str]) -> str:
    rest = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0]}{rest}"
