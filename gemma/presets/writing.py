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
from typing import Any

from etils import epath

from gemma.config import Architecture, GemmaConfig
from gemma.presets import keras_json
from gemma.presets.keras_config import CONFIG_FILE, PREPROCESSOR_FILE, VOCABULARY_FILE
from gemma.presets.keras_weights import SHARDED_WEIGHTS_FILE, WEIGHTS_FILE
from gemma.presets.query_scale import fold_query_scale
from gemma.presets.shards import DTYPES, Arrays, write_weights

KERAS_HUB_VERSION = "0.32.0"
"""Version of KerasHub whose form is written."""

METADATA_FILE = "metadata.json"
TOKENIZER_FILE = "tokenizer.json"
TASK_FILE = "task.json"

_TASKS: dict[Architecture, list[str]] = {
    "gemma": ["CausalLM"],
    "gemma3": ["CausalLM", "TextEmbedder"],  # KerasHub has both for its backbone
}

_FILES = (
    CONFIG_FILE,
    METADATA_FILE,
    TOKENIZER_FILE,
    PREPROCESSOR_FILE,
    TASK_FILE,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    SHARDED_WEIGHTS_FILE,
    "model.safetensors",
    "model.safetensors.index.json",
    "generation_config.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
"""Files of a preset in either form; those of a model card are left alone."""

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
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a preset; `config.json` comes last: without it a directory is unfinished.

    Args:
        directory: Local or remote; files of an older preset in it are replaced.
        config: Dimensions; a scale of the query that KerasHub has no name for is
            moved into the weights.
        dtype: `float32` or `bfloat16`; arrays of another dtype are rounded once.
        arrays: Called once for every variable path.
        vocabulary: SentencePiece model; None leaves out tokenizer and task.
        sequence_length: Of the preprocessor, in tokens.
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
    target = epath.Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    remove_preset(target)
    _write_weight_files(target, config, dtype, arrays, max_shard_bytes)
    backbone = keras_json.backbone(config, dtype)
    if vocabulary is not None:
        _write_text_files(
            target, config.architecture, backbone, vocabulary, sequence_length
        )
    _write_json(target / METADATA_FILE, _metadata(config))
    _write_json(target / CONFIG_FILE, backbone)


def remove_preset(target: epath.Path) -> None:
    """Remove the files of an older preset of either form: none shall outlive it.

    `config.json` goes first: without it a directory is unfinished.
    """
    for name in _FILES:
        (target / name).unlink(missing_ok=True)
    for pattern in ("model_*.weights.h5", "model-*-of-*.safetensors"):
        for shard in list(target.glob(pattern)):
            shard.unlink()


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
    length: int,
) -> None:
    path = target / VOCABULARY_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(vocabulary)
    _write_json(target / TOKENIZER_FILE, keras_json.tokenizer(architecture))
    _write_json(
        target / PREPROCESSOR_FILE, keras_json.preprocessor(architecture, length)
    )
    _write_json(target / TASK_FILE, keras_json.task(architecture, backbone, length))


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
