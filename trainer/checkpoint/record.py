"""What is written beside the arrays of a checkpoint, so that damage shows.

Turns names, shapes, dtypes, digests and the run's own metadata into one JSON object
with a checksum of itself, and compares such an object with what is wanted and with
what came back. It refuses to know Orbax and files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

from trainer.config.errors import StorageError

Record = dict[str, Any]
VERSION = 1
_MAX_NAMES_SHOWN = 4


class Described(Protocol):
    """An array or a description of one."""

    shape: tuple[int, ...]
    dtype: Any


def describe(
    arrays: Mapping[str, Described],
    found: Mapping[str, int],
    metadata: Mapping[str, Any],
    *,
    loss: float | None,
) -> Record:
    """Return the record of `arrays` with the digests `found` and the run's metadata."""
    facts = {
        "version": VERSION,
        "arrays": {
            name: {**_facts(array), "digest": found[name]}
            for name, array in sorted(arrays.items())
        },
        "loss": loss,
        "metadata": dict(metadata),
    }
    return {**facts, "sha256": _checksum(facts)}


def metadata(facts: Record) -> dict[str, Any]:
    """Return the run's own part of a record."""
    return facts["metadata"]


def loss(facts: Record) -> float | None:
    """Return the loss by which steps are compared."""
    return facts["loss"]


def same(facts: Record, other: Record) -> bool:
    """Return whether two records describe the same arrays."""
    return facts["arrays"] == other["arrays"]


def check_whole(facts: Record, *, where: str, fix: str) -> None:
    """Raise unless the record is the one that was written."""
    rest = {name: value for name, value in facts.items() if name != "sha256"}
    if facts.get("sha256") != _checksum(rest):
        raise StorageError(
            key=where,
            expected="the record that was written with the checkpoint",
            received="a damaged record: its sha256 differs",
            fix=fix,
        )
    if rest["version"] != VERSION:
        raise StorageError(
            key=where,
            expected=f"a checkpoint of version {VERSION}",
            received=f"version {rest['version']}",
            fix="restore it with the release of this package that wrote it",
        )


def check_like(facts: Record, like: Mapping[str, Described], *, where: str) -> None:
    """Raise unless exactly the arrays of `like` were saved, shapes and dtypes alike."""
    stored = {
        name: {"shape": fact["shape"], "dtype": fact["dtype"]}
        for name, fact in facts["arrays"].items()
    }
    wanted = {name: _facts(array) for name, array in like.items()}
    if stored == wanted:
        return
    differing = [
        name
        for name in sorted(stored.keys() | wanted.keys())
        if stored.get(name) != wanted.get(name)
    ]
    shown = differing[:_MAX_NAMES_SHOWN]
    more = len(differing) - len(shown)
    raise StorageError(
        key=where,
        expected="\n".join(f"{name}: {_shown(wanted.get(name))}" for name in shown),
        received="\n".join(f"{name}: {_shown(stored.get(name))}" for name in shown)
        + (f"\nand {more} more that differ" if more else ""),
        fix="use the preset and lora keys that this checkpoint was made with, or "
        "another run.name",
    )


def check_digests(
    facts: Record, found: Mapping[str, int], *, where: str, fix: str
) -> None:
    """Raise unless every array came back bit for bit."""
    damaged = [
        name
        for name, fact in facts["arrays"].items()
        if found.get(name) != fact["digest"]
    ]
    if damaged:
        raise StorageError(
            key=where,
            expected="arrays that are bit for bit those that were saved",
            received="damaged: " + ", ".join(damaged[:_MAX_NAMES_SHOWN]),
            fix=fix,
        )


def _facts(array: Described) -> dict[str, Any]:
    """Return shape and dtype as JSON has them."""
    return {"shape": [int(size) for size in array.shape], "dtype": str(array.dtype)}


def _shown(fact: Mapping[str, Any] | None) -> str:
    """Return shape and dtype as people read them."""
    if fact is None:
        return "not there"
    return f"{fact['dtype']}[{','.join(map(str, fact['shape']))}]"


def _checksum(facts: Record) -> str:
    """Return the SHA-256 of a JSON object, independent of the order of its keys."""
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()
