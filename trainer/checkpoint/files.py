"""The files of a checkpoint, by size and content.

Turns a directory into what its files are, and such a description into the first files
that are no longer so. Small files, which all metadata are, are hashed; of a large one,
which holds arrays only, the size is kept: their digests prove the content, and no large
model is read twice. It refuses to know what is in the files.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from trainer import storage

Files = dict[str, dict[str, Any]]
HASHED_BYTES = 16 << 20
"""Largest file whose content is hashed."""
_THREADS = 8  # a remote file is a matter of waiting
_MAX_SHOWN = 4


def describe_files(directory: epath.Path) -> Files:
    """Return size and hash of every file below `directory`, by relative name."""
    names = sorted(_names(directory))
    return dict(zip(names, _looked_at(directory, names), strict=True))


def describe_bytes(content: bytes) -> dict[str, Any]:
    """Return the description of a file with this content."""
    is_small = len(content) <= HASHED_BYTES
    digest = hashlib.sha256(content).hexdigest() if is_small else None
    return {"bytes": len(content), "sha256": digest}


def find_damage(directory: epath.Path, expected: Mapping[str, Any]) -> str | None:
    """Return what is wrong with which files in words; None where nothing is."""
    found = _looked_at(directory, list(expected))
    flaws = [
        f"{name} {_flaw(facts, now)}"
        for (name, facts), now in zip(expected.items(), found, strict=True)
        if facts != now
    ]
    more = f", and {len(flaws) - _MAX_SHOWN} more" if len(flaws) > _MAX_SHOWN else ""
    return ", ".join(flaws[:_MAX_SHOWN]) + more if flaws else None


def _flaw(expected: Mapping[str, Any], found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "is gone"
    if found["bytes"] != expected["bytes"]:
        return f"has {found['bytes']:,} bytes instead of {expected['bytes']:,}"
    return "has another content"


def _looked_at(
    directory: epath.Path, names: list[str]
) -> Iterator[dict[str, Any] | None]:
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        yield from threads.map(lambda name: _describe(directory / name), names)


def _describe(path: epath.Path) -> dict[str, Any] | None:
    """Return the description of a file, None if it is not there."""
    try:
        size = path.stat().length
    except FileNotFoundError:
        return None
    if size > HASHED_BYTES:
        return {"bytes": size, "sha256": None}
    return describe_bytes(storage.read_bytes(path))


def _names(directory: epath.Path, above: str = "") -> Iterator[str]:
    for entry in directory.iterdir():
        if entry.is_dir():
            yield from _names(entry, f"{above}{entry.name}/")
        else:
            yield f"{above}{entry.name}"
