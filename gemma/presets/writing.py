"""A preset directory in KerasHub's form, written one variable at a time.

Turns dimensions, a dtype and a function that returns arrays into the files that
KerasHub writes. It never holds more than one variable, and refuses to know where the
arrays come from.

Source: files written by KerasHub 0.32.0 on Keras 3.15.1, kept in `tests/golden`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from etils import epath

from gemma.config import Architecture, GemmaConfig
from gemma.presets import keras_json
from gemma.presets.directory import (
    METADATA_FILE,
    TASK_FILE,
    TOKENIZER_FILE,
    replaced_preset,
)
from gemma.presets.keras_config import CONFIG_FILE, PREPROCESSOR_FILE, VOCABULARY_FILE
from gemma.presets.query_scale import fold_query_scale
from gemma.presets.shards import DTYPES, Arrays, write_weights

KERAS_HUB_VERSION = "0.32.0"
"""Version of KerasHub whose form is written."""

_TASKS: dict[Architecture, list[str]] = {
    "gemma": ["CausalLM"],
    "gemma3": ["CausalLM", "TextEmbedder"],  # KerasHub has both for its backbone
}

MAX_SHARD_BYTES = 10 * 1024**3
DEFAULT_SEQUENCE_LENGTH = 1024


def write_preset(
    directory: os.PathLike[str] | str,
    *,
    config: GemmaConfig,
    dtype: str,
    arrays: Arrays,
    vocabulary: bytes | None,
    sequence_length: int = DEFAULT_SEQUENCE_LENGTH,
    add_start_token: bool = True,
    add_end_token: bool = True,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a preset; an older one is replaced once the new one is whole.

    Args:
        directory: Local or remote; files of an older preset in it are replaced, even
            where `arrays` reads them.
        config: Dimensions; a scale of the query that KerasHub has no name for is
            moved into the weights.
        dtype: `float32` or `bfloat16`; arrays of another dtype are rounded once.
        arrays: Called once for every variable path.
        vocabulary: SentencePiece model; None leaves out tokenizer and task.
        sequence_length: Of the preprocessor, in tokens.
        add_start_token: Whether the preprocessor puts BOS before a text.
        add_end_token: Whether it puts EOS behind one to train on.
        max_shard_bytes: Weights beyond this size are split over several files.

    Raises:
        ValueError: An unknown dtype, an array of another shape than the config says,
            or a variable larger than a shard.
    """
    if dtype not in DTYPES:
        raise ValueError(
            f"dtype must be {' or '.join(sorted(DTYPES))}, received {dtype!r}"
        )
    config, arrays = fold_query_scale(config, arrays)
    backbone = keras_json.backbone(config, dtype)
    with replaced_preset(directory) as target:
        _write_weight_files(target, config, dtype, arrays, max_shard_bytes)
        if vocabulary is not None:
            sequences = {
                "sequence_length": sequence_length,
                "add_start_token": add_start_token,
                "add_end_token": add_end_token,
            }
            _write_text_files(
                target, config.architecture, backbone, vocabulary, sequences
            )
        _write_json(target / METADATA_FILE, _metadata(config))
        _write_json(target / CONFIG_FILE, backbone)


def _write_weight_files(
    target: epath.Path, config: GemmaConfig, dtype: str, arrays: Arrays, limit: int
) -> None:
    """Write the weights in place, or locally first where HDF5 cannot write."""
    if "://" not in os.fspath(target):
        write_weights(
            pathlib.Path(target), config, dtype, arrays, max_shard_bytes=limit
        )
        return
    with tempfile.TemporaryDirectory(prefix="gemma-") as folder:
        local = pathlib.Path(folder)
        write_weights(local, config, dtype, arrays, max_shard_bytes=limit)
        for file in sorted(local.iterdir()):
            with file.open("rb") as source, (target / file.name).open("wb") as copy:
                shutil.copyfileobj(source, copy, length=1 << 24)


def _write_text_files(
    target: epath.Path,
    architecture: Architecture,
    backbone: dict[str, Any],
    vocabulary: bytes,
    sequences: Mapping[str, int | bool],
) -> None:
    path = target / VOCABULARY_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(vocabulary)
    _write_json(target / TOKENIZER_FILE, keras_json.tokenizer(architecture))
    _write_json(
        target / PREPROCESSOR_FILE, keras_json.preprocessor(architecture, sequences)
    )
    _write_json(target / TASK_FILE, keras_json.task(architecture, backbone, sequences))


def _metadata(config: GemmaConfig) -> dict[str, Any]:
    return {
        "keras_version": importlib.metadata.version("keras"),
        "keras_hub_version": KERAS_HUB_VERSION,
        "parameter_count": config.parameter_count,
        "date_saved": time.strftime("%Y-%m-%d@%H:%M:%S"),
        "tasks": _TASKS[config.architecture],
    }


def _write_json(path: epath.Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=4))
