"""A directory in Hugging Face's form, written one tensor at a time.

Turns dimensions, a dtype and a function that returns arrays into the files that
transformers loads. It never holds more than one variable, and refuses to know where
the arrays come from.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from etils import epath

from gemma.config import GemmaConfig
from gemma.presets import hf_json
from gemma.presets.directory import (
    GENERATION_FILE,
    HF_TOKENIZER_FILE,
    TOKENIZER_CONFIG_FILE,
    replaced_preset,
)
from gemma.presets.hf_weights import hf_name, hf_shape, to_hf
from gemma.presets.keras_config import CONFIG_FILE
from gemma.presets.safetensors_writing import write_safetensors
from gemma.presets.shards import DTYPES, Arrays
from gemma.presets.writing import MAX_SHARD_BYTES
from gemma.tokenizers import GemmaTokenizer

_PUBLISHED_IDS = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
"""Of every published Gemma, where there is no vocabulary to ask."""


def write_hf(
    directory: os.PathLike[str] | str,
    *,
    config: GemmaConfig,
    dtype: str,
    arrays: Arrays,
    vocabulary: bytes | None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write what transformers loads; an older preset is replaced once it is whole.

    Args:
        directory: Local or remote; files of an older preset in it are replaced,
            whatever its form.
        config: Dimensions.
        dtype: `float32` or `bfloat16`; arrays of another dtype are rounded once.
        arrays: Called once for every variable path, adapters merged.
        vocabulary: SentencePiece model; None leaves out the tokenizer.
        max_shard_bytes: Weights beyond this size are split over several files.

    Raises:
        ValueError: An unknown dtype, a model that transformers has no architecture
            for, an array of another shape, or a variable larger than a shard.
    """
    if dtype not in DTYPES:
        raise ValueError(
            f"dtype must be {' or '.join(sorted(DTYPES))}, received {dtype!r}"
        )
    tokenizer = None if vocabulary is None else GemmaTokenizer(vocabulary)
    ids = _special_ids(tokenizer)
    described = hf_json.model_config(config, dtype, ids)
    shapes = config.parameter_shapes()
    paths = {f"model.{hf_name(path, config)}": path for path in shapes}

    def tensor(name: str) -> np.ndarray:
        path = paths[name]
        return to_hf(path, np.asarray(arrays(path)))

    with replaced_preset(directory) as target:
        write_safetensors(
            target,
            {name: hf_shape(path, shapes[path]) for name, path in paths.items()},
            dtype=dtype,
            arrays=tensor,
            max_shard_bytes=max_shard_bytes,
        )
        if tokenizer is not None:
            (target / HF_TOKENIZER_FILE).write_bytes(tokenizer.proto)
            _write_json(target / TOKENIZER_CONFIG_FILE, hf_json.tokenizer_config())
        turn = tokenizer and tokenizer.end_of_turn_id
        _write_json(target / GENERATION_FILE, hf_json.generation_config(ids, turn))
        _write_json(target / CONFIG_FILE, described)


def _special_ids(tokenizer: GemmaTokenizer | None) -> dict[str, int]:
    if tokenizer is None:
        return dict(_PUBLISHED_IDS)
    return {
        "bos_token_id": tokenizer.start_token_id,
        "eos_token_id": tokenizer.end_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _write_json(path: epath.Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2))
