"""The small JSON file beside an adapter: rank, alpha, targets, form, base, hashes.

Turns what KerasHub's file, or PEFT's, has no place for into JSON and back, each value
checked. It refuses to know arrays: one hash ties it to the bytes of one file, another
to the base (`gemma.adapters.base` says what is hashed).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from typing import Any

from etils import epath

from gemma.adapters.base import ALGORITHM, is_base_hash
from gemma.lora import PROJECTIONS, Factorisation
from gemma.presets.errors import PresetFileError
from gemma.presets.json_file import read_json

SUFFIX = ".lora.h5"

_FETCH = "copy the adapter's file and its .json again, both from one place"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What is needed to use the factors of a file; their scale is alpha / rank."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    factorisation: Factorisation
    base: str | None
    base_hash: str | None


def checked_path(path: os.PathLike[str] | str) -> epath.Path:
    """Return the path of an adapter.

    Raises:
        ValueError: The name does not end in `.lora.h5`, which KerasHub insists on.
    """
    if not os.fspath(path).endswith(SUFFIX):
        raise ValueError(
            f"path of an adapter must end in {SUFFIX}, received {os.fspath(path)!r}"
        )
    return epath.Path(path)


def sidecar_path(path: os.PathLike[str] | str) -> epath.Path:
    """Return where the sidecar of `adapter.lora.h5` lies: `adapter.json` beside it."""
    path = checked_path(path)
    return path.with_name(path.name.removesuffix(SUFFIX) + ".json")


def check_replaceable(side: epath.Path) -> None:
    """Refuse to write a sidecar over another file, such as a preset's `config.json`.

    Raises:
        PresetFileError: There is a file of its name that is no sidecar.
    """
    if not side.exists():
        return
    try:
        is_sidecar = _CHECKS.keys() - {"base_hash"} <= read_json(side).keys()
    except PresetFileError:
        is_sidecar = False
    if not is_sidecar:
        raise PresetFileError(
            side,
            expected="nothing, or what was written here beside an adapter before",
            received="another file, which would be lost",
            fix="give the adapter another name or directory, as in adapter.lora.h5",
        )


def write_sidecar(side: epath.Path, sidecar: Sidecar, content: bytes) -> None:
    """Write the sidecar of an adapter whose file has the bytes `content`."""
    values = dataclasses.asdict(sidecar)
    values["sha256"] = hashlib.sha256(content).hexdigest()
    side.write_text(json.dumps(values, indent=4) + "\n")


def read_sidecar(side: epath.Path, path: epath.Path) -> Sidecar | None:
    """Return the sidecar `side` of the adapter `path`, None where there is none.

    Raises:
        PresetFileError: A value is missing or wrong, or belongs to another file.
    """
    if not side.exists():
        return None
    values = read_json(side)
    for key, (expected, is_right) in _CHECKS.items():
        if not is_right(values.get(key)):
            _refuse(side, key, expected, values.get(key))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if values["sha256"] != digest:
        _refuse(side, "sha256", f"that of {path.name} ({digest})", values["sha256"])
    return Sidecar(
        rank=values["rank"],
        alpha=float(values["alpha"]),
        targets=tuple(name for name in PROJECTIONS if name in values["targets"]),
        factorisation=values["factorisation"],
        base=values["base"],
        base_hash=values.get("base_hash"),
    )


def _is_number(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_targets(value: Any) -> bool:  # noqa: ANN401
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(name, str) and name in PROJECTIONS for name in value)


_CHECKS = {
    "rank": ("an integer >= 1", lambda v: type(v) is int and v >= 1),
    "alpha": (
        "a finite number > 0",
        lambda v: _is_number(v) and math.isfinite(v) and v > 0,
    ),
    "targets": (f"some of {', '.join(PROJECTIONS)}", _is_targets),
    "factorisation": ("keras or shared", lambda v: v in ("keras", "shared")),
    "base": ("a name or null", lambda v: v is None or isinstance(v, str)),
    "base_hash": (
        f"{ALGORITHM}:<64 hex digits>, null or nothing",
        lambda v: v is None or is_base_hash(v),
    ),
    "sha256": ("a hash", lambda v: isinstance(v, str)),
}


def _refuse(side: epath.Path, key: str, expected: str, received: object) -> None:
    raise PresetFileError(
        f"{side}, {key}", expected=expected, received=repr(received), fix=_FETCH
    )
