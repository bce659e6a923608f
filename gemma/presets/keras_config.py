"""The JSON files of a preset directory in KerasHub's form, read as facts.

Turns `config.json` into a `GemmaConfig` or `Gemma3Config` and a dtype. Classes come
from a fixed table of names: it refuses to import, build or evaluate anything that a
file names, and knows nothing of weights.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from etils import epath

from gemma.config import TEXT_ONLY, Gemma3Config, GemmaConfig
from gemma.presets.dimensions import checked_config
from gemma.presets.errors import PresetFileError
from gemma.presets.json_file import read_json
from gemma.presets.source import inside

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor.json"
VOCABULARY_FILE = "assets/tokenizer/vocabulary.spm"

BACKBONES: Mapping[str, type[GemmaConfig]] = MappingProxyType(
    {"GemmaBackbone": GemmaConfig, "Gemma3Backbone": Gemma3Config}
)
"""`class_name` of a `config.json` -> the config that its arguments make."""

_STORED_DTYPES = {
    "float32": "float32",
    "bfloat16": "bfloat16",
    "float16": "float32",
    "mixed_bfloat16": "float32",
    "mixed_float16": "float32",
}
"""Name of a Keras dtype policy -> our dtype that holds its variables exactly."""


def read_config(path: epath.Path, values: Mapping[str, Any]) -> tuple[GemmaConfig, str]:
    """Return the dimensions and the dtype that a KerasHub `config.json` states.

    Raises:
        PresetFileError: Another class, a missing or unknown key, a wrong value.
    """
    class_name = values.get("class_name")
    if not isinstance(class_name, str) or class_name not in BACKBONES:
        raise PresetFileError(
            f"{path}, class_name",
            expected=" or ".join(BACKBONES),
            received=class_name,
            fix="use a text preset of Gemma 1, 2 or 3",
        )
    config = values.get("config")
    if not isinstance(config, dict):
        raise PresetFileError(
            f"{path}, config",
            expected="an object with the dimensions",
            received=type(config).__name__,
            fix="fetch the file again from where it was published",
        )
    dimensions = _dimensions(path, config, class_name)
    return dimensions, _dtype(path, config.get("dtype") or "float32")


def read_preprocessor(directory: epath.Path) -> dict[str, Any]:
    """Return what a preprocessor's file says of sequences, by the names it has there.

    Those of `sequence_length`, `add_start_token` and `add_end_token` that are there.
    """
    path = directory / PREPROCESSOR_FILE
    if not path.exists():
        return {}
    config = read_json(inside(directory, PREPROCESSOR_FILE)).get("config")
    if not isinstance(config, dict):
        return {}
    return {n: config[n] for n, t in _SEQUENCES.items() if type(config.get(n)) is t}


_SEQUENCES = {"sequence_length": int, "add_start_token": bool, "add_end_token": bool}


def _dimensions(
    path: epath.Path, config: Mapping[str, Any], class_name: str
) -> GemmaConfig:
    kind = BACKBONES[class_name]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    known = fields.keys() | {"name", "trainable", "dtype"}
    if kind is Gemma3Config:
        _check_text_only(path, config)
        known |= TEXT_ONLY.keys()
    if unknown := sorted(config.keys() - known):
        raise PresetFileError(
            f"{path}, config",
            expected=f"the arguments of {class_name}",
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
    return checked_config(path, kind, config)


def _check_text_only(path: epath.Path, config: Mapping[str, Any]) -> None:
    """Refuse what turns KerasHub's Gemma 3 into more than a causal text model.

    `image_size` alone changes nothing: some text presets carry it.
    """
    for name, only in TEXT_ONLY.items():
        if name == "image_size" or config.get(name, only) == only:
            continue
        received = config[name]
        if isinstance(received, dict):
            received = received.get("class_name", "an object")
        raise PresetFileError(
            f"{path}, config.{name}",
            expected=f"{json.dumps(only)} for a causal text model",
            received=json.dumps(received),
            fix="use the text preset of this size, such as gemma3_4b_text, or the "
            "directory in Hugging Face's form, whose vision weights are left alone",
        )


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
