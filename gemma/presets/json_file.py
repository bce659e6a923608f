"""JSON from strangers, read as one object within limits.

Turns a file or bytes into a dict. It refuses what would fill the memory or the stack,
numbers that are none, and names that occur twice; it knows no key.
"""

from __future__ import annotations

import collections
import json
from typing import Any

from etils import epath

from gemma.presets.errors import PresetFileError

MAX_JSON_BYTES = 8 << 20
"""Published configs, maps and headers stay below one of these 8 megabytes.

As many empty objects take 40 times this memory.
"""

_FETCH = "fetch the file again from where it was published"


def read_json(path: epath.Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        PresetFileError: The file is missing, too long, or holds something else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise PresetFileError(
            path,
            expected="a file of JSON",
            received="no readable file",
            fix="use the directory of a preset in KerasHub's or Hugging Face's form",
        ) from error
    return parse_json(content, subject=path)


def parse_json(content: bytes, *, subject: object) -> dict[str, Any]:
    """Return the object that `content` spells; `subject` names it in errors.

    Raises:
        PresetFileError: It is too long, nested too deeply, or no object.
    """
    if len(content) > MAX_JSON_BYTES:
        raise PresetFileError(
            subject,
            expected=f"JSON of at most {MAX_JSON_BYTES} bytes",
            received="more",
            fix=_FETCH,
        )
    try:
        value = json.loads(
            content, object_pairs_hook=_once, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise PresetFileError(
            subject, expected="JSON", received=f"text that is not ({error})", fix=_FETCH
        ) from error
    if not isinstance(value, dict):
        raise PresetFileError(
            subject,
            expected="a JSON object",
            received=type(value).__name__,
            fix=_FETCH,
        )
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as a dict; of two values for one name neither can be right."""
    values = dict(pairs)
    if len(values) != len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"{twice} occurs twice")
    return values


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")
