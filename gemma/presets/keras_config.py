"""The JSON files of a preset directory in KerasHub's form, read as facts.

Turns `config.json` into a `GemmaConfig` and a dtype. Classes come from a fixed table
of names: it refuses to import, build or evaluate anything that a file names, and
knows nothing of weights.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from gemma.config import GemmaConfig
from gemma.presets.errors import PresetFileError

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor.json"
VOCABULARY_FILE = "assets/tokenizer/vocabulary.spm"

BACKBONE_CLASSES = ("GemmaBackbone",)

_STORED_DTYPES = {
    "float32": "float32",
    "bfloat16": "bfloat16",
    "float16": "float32",
    "mixed_bfloat16": "float32",
    "mixed_float16": "float32",
}
"""Name of a Keras dtype policy -> our dtype that holds its variables exactly."""


def read_json(path: epath.Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        PresetFileError: The file is missing, or holds something else.
    """
    try:
        value = json.loads(path.read_text())
    except OSError as error:
        raise PresetFileError(
            path,
            expected="a file of JSON",
            received="no readable file",
            fix="use the directory of a preset in KerasHub's or Hugging Face's form",
        ) from error
    except ValueError as error:
        raise PresetFileError(
            path,
            expected="JSON",
            received=f"text that is not ({error})",
            fix="fetch the file again from where it was published",
        ) from error
    if not isinstance(value, dict):
        raise PresetFileError(
            path,
            expected="a JSON object",
            received=type(value).__name__,
            fix="fetch the file again from where it was published",
        )
    return value


def read_config(path: epath.Path, values: Mapping[str, Any]) -> tuple[GemmaConfig, str]:
    """Return the dimensions and the dtype that a KerasHub `config.json` states.

    Raises:
        PresetFileError: Another class, a missing or unknown key, a wrong value.
    """
    if values.get("class_name") not in BACKBONE_CLASSES:
        raise PresetFileError(
            f"{path}, class_name",
            expected=" or ".join(BACKBONE_CLASSES),
            received=values.get("class_name"),
            fix="use a preset of Gemma 1 or Gemma 2",
        )
    config = values.get("config")
    if not isinstance(config, dict):
        raise PresetFileError(
            f"{path}, config",
            expected="an object with the dimensions",
            received=type(config).__name__,
            fix="fetch the file again from where it was published",
        )
    return _dimensions(path, config), _dtype(path, config.get("dtype") or "float32")


def read_sequence_length(directory: epath.Path) -> int | None:
    """Return the preprocessor's sequence length, None where there is none."""
    path = directory / PREPROCESSOR_FILE
    if not path.exists():
        return None
    config = read_json(path).get("config")
    length = config.get("sequence_length") if isinstance(config, dict) else None
    return length if isinstance(length, int) else None


def _dimensions(path: epath.Path, config: Mapping[str, Any]) -> GemmaConfig:
    fields = {field.name: field for field in dataclasses.fields(GemmaConfig)}
    known = fields.keys() | {"name", "trainable", "dtype"}
    if unknown := sorted(config.keys() - known):
        raise PresetFileError(
            f"{path}, config",
            expected="the arguments of GemmaBackbone",
            received=f"also {', '.join(unknown)}",
            fix="use a preset that this version knows",
        )
    required = {n for n, f in fields.items() if f.default is dataclasses.MISSING}
    if missing := sorted(required - config.keys()):
        raise PresetFileError(
            f"{path}, config",
            expected="every dimension",
            received=f"none for {', '.join(missing)}",
            fix="fetch the file again from where it was published",
        )
    for name in config.keys() & fields.keys():
        _check_type(path, name, config[name], fields[name].default)
    try:
        return GemmaConfig.from_mapping(config)
    except ValueError as error:
        raise PresetFileError(
            f"{path}, config",
            expected="dimensions of a Gemma model",
            received=f"others ({error})",
            fix="fetch the file again from where it was published",
        ) from error


def _check_type(path: epath.Path, name: str, value: object, default: object) -> None:
    if isinstance(default, bool):
        right, expected = isinstance(value, bool), "true or false"
    elif default is None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        right, expected = value is None or number, "a number or null"
    else:
        right = isinstance(value, int | float) and not isinstance(value, bool)
        expected = "a number"
    if not right:
        raise PresetFileError(
            f"{path}, config.{name}",
            expected=expected,
            received=repr(value),
            fix="fetch the file again from where it was published",
        )


def _dtype(path: epath.Path, value: object) -> str:
    if isinstance(value, dict):
        inner = value.get("config")
        is_policy = value.get("class_name") == "DTypePolicy" and isinstance(inner, dict)
        value = inner.get("name") if is_policy else value.get("class_name")
    if not isinstance(value, str) or value not in _STORED_DTYPES:
        raise PresetFileError(
            f"{path}, config.dtype",
            expected=" or ".join(_STORED_DTYPES),
            received=value,
            fix="use a preset whose weights are not quantized",
        )
    return _STORED_DTYPES[value]
