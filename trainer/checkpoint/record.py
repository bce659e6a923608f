"""What is written beside the arrays of a checkpoint, so that damage shows.

Turns names, shapes, dtypes, digests, files and the run's own metadata into one JSON
object with a checksum of itself, and compares such an object with what is wanted and
with what came back. It refuses to know Orbax and where files are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

from trainer.config.errors import DamagedError, StorageError

Record = dict[str, Any]
VERSION = 2
RECORD = "record.json"
_MAX_NAMES_SHOWN = 4


class Described(Protocol):
    """An array or a description of one."""

    shape: tuple[int, ...]
    dtype: Any


def describe(
    arrays: Mapping[str, Described], metadata: Mapping[str, Any], *, loss: float | None
) -> Record:
    """Return what is known of a checkpoint before its digests and files are."""
    return {
        "version": VERSION,
        "arrays": {name: _facts(array) for name, array in sorted(arrays.items())},
        "loss": loss,
        "metadata": dict(metadata),
    }


def seal(facts: Record, found: Mapping[str, int], files: Mapping[str, Any]) -> bytes:
    """Return the content of a record: `facts`, digests of the arrays, and the files."""
    arrays = {
        name: {**fact, "digest": found[name]} for name, fact in facts["arrays"].items()
    }
    whole = {**facts, "arrays": arrays, "files": dict(files)}
    return _encode(json.loads(json.dumps(whole)))  # as it will be read


def unseal(content: bytes, *, where: str, fix: str) -> Record:
    """Return the record that `seal` made, byte for byte.

    Raises:
        DamagedError: A byte of it changed.
        StorageError: Another release wrote it.
    """
    try:
        facts = json.loads(content)
        rest = {name: value for name, value in facts.items() if name != "sha256"}
        is_whole = _encode(rest) == content
    except (ValueError, AttributeError):  # no JSON, or none of an object
        is_whole = False
    if not is_whole:
        raise DamagedError(
            key=where,
            expected="the record that was written with the checkpoint",
            received=f"a damaged {RECORD}: its sha256 differs",
            fix=fix,
        )
    if facts["version"] != VERSION:
        raise StorageError(
            key=where,
            expected=f"a checkpoint of version {VERSION}",
            received=f"version {facts['version']}",
            fix="restore it with the release of this package that wrote it",
        )
    return facts


def metadata(facts: Record) -> dict[str, Any]:
    """Return the run's own part of a record."""
    return facts["metadata"]


def loss(facts: Record) -> float | None:
    """Return the loss by which steps are compared."""
    return facts["loss"]


def rated(facts: Record, loss: float) -> bytes:
    """Return the content of a record that was sealed without a loss, with one."""
    whole = {name: value for name, value in facts.items() if name != "sha256"}
    return _encode({**whole, "loss": loss})


def check_same(
    facts: Record, other: Record, found: Mapping[str, int], *, where: str
) -> None:
    """Raise unless a record has the arrays that `other` describes, of digests `found`.

    Raises:
        StorageError: They are others: a step is saved once.
    """
    arrays = {
        name: {**fact, "digest": found[name]} for name, fact in other["arrays"].items()
    }
    if facts["arrays"] != arrays:
        raise StorageError(
            key=where,
            expected="the state that is saved there already, or a new step",
            received="another state for this step",
            fix="use another run.name, or delete this checkpoint first",
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
        raise DamagedError(
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


def _encode(facts: Record) -> bytes:
    """Return JSON with a SHA-256 of itself, whatever the order of the keys was."""
    digest = hashlib.sha256(_canonical(facts)).hexdigest()
    return _canonical({**facts, "sha256": digest})


def _canonical(facts: Record) -> bytes:
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()
