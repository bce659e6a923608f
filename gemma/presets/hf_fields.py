"""Fields of Hugging Face's `config.json`, read with their types checked.

Turns a key into a value of the right type, or into an error that names file, key and
what was expected. It refuses to know what the keys mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from etils import epath

from gemma.presets.errors import PresetFileError


def integer(path: epath.Path, values: Mapping[str, Any], key: str) -> int:
    """Return a whole number; it may not be absent."""
    value = values.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        refuse(path, key, "an integer", value)
    return value


def number(
    path: epath.Path, values: Mapping[str, Any], key: str, default: float
) -> float:
    """Return a number, `default` where the key is absent."""
    value = values.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        refuse(path, key, "a number", value)
    return float(value)


def soft_cap(
    path: epath.Path, values: Mapping[str, Any], key: str, default: float | None
) -> float | None:
    """Return a soft cap: null switches it off, an absent key means the default."""
    value = values.get(key, default)
    return None if value is None else number(path, {key: value}, key, 0.0)


def as_object(path: epath.Path, values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return an object, an empty one where the key is absent or null."""
    value = values.get(key)
    if value is not None and not isinstance(value, dict):
        refuse(path, key, "an object", value)
    return value or {}


def refuse(path: epath.Path, key: str, expected: str, received: object) -> NoReturn:
    """Raise for a setting that our model does not compute.

    Raises:
        PresetFileError: Always.
    """
    raise PresetFileError(
        f"{path}, {key}",
        expected=expected,
        received=repr(received),
        fix="use a model whose config.json has it so",
    )
