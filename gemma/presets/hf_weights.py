"""Hugging Face's safetensors of Gemma 1 and 2, read as arrays.

Turns one file or an index of several into a source of arrays under our variable paths,
reshaped and transposed slice by slice. It refuses a tensor that belongs to no variable,
and knows no other file format: weights that need pickle are never opened.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
from types import TracebackType
from typing import Any, Self

import ml_dtypes
import numpy as np
from etils import epath
from safetensors import SafetensorError, safe_open

from gemma.config import GemmaConfig
from gemma.presets import hdf5
from gemma.presets.errors import PresetFileError
from gemma.presets.keras_config import read_json
from gemma.presets.source import Index, check_whole, local_file, normalise_index

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_DTYPES = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
}
_PROJECTIONS = {
    "attention/query/kernel": "self_attn.q_proj",
    "attention/key/kernel": "self_attn.k_proj",
    "attention/value/kernel": "self_attn.v_proj",
    "attention/attention_output/kernel": "self_attn.o_proj",
    "ffw_gating/kernel": "mlp.gate_proj",
    "ffw_gating_2/kernel": "mlp.up_proj",
    "ffw_linear/kernel": "mlp.down_proj",
    "pre_attention_norm/scale": "input_layernorm",
    "post_attention_norm/scale": "post_attention_layernorm",
    "pre_ffw_norm/scale": "pre_feedforward_layernorm",
    "post_ffw_norm/scale": "post_feedforward_layernorm",
}
_HEADS_FIRST = frozenset(("query", "key", "value"))
_BUFFER = re.compile(r".*rotary_emb\.inv_freq")
_BLOCK_BYTES = 1 << 24


def hf_name(path: str, config: GemmaConfig) -> str:
    """Return the tensor that holds the variable `path`, without `model.`."""
    if path == "token_embedding/embeddings":
        return "embed_tokens.weight"
    if path == "final_normalization/scale":
        return "norm.weight"
    block, inner = path.split("/", 1)
    name = _PROJECTIONS[inner]
    if inner == "pre_ffw_norm/scale" and not config.use_post_attention_norm:
        name = "post_attention_layernorm"  # Gemma 1 names it by what stands before it
    return f"layers.{block.rsplit('_', 1)[1]}.{name}.weight"


def hf_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape in which Hugging Face stores a variable of `shape`."""
    if path.rsplit("/", 1)[1] == "scale" or path == "token_embedding/embeddings":
        return shape
    layer = path.split("/")[-2]
    if layer in _HEADS_FIRST:
        heads, hidden, head_dim = shape
        return (heads * head_dim, hidden)
    if layer == "attention_output":
        heads, head_dim, hidden = shape
        return (hidden, heads * head_dim)
    return shape[::-1]


class HuggingFaceWeights:
    """Arrays of `model.safetensors`, or of the files that its index names."""

    def __init__(self, directory: epath.Path, config: GemmaConfig) -> None:
        """Open the files and prove that they hold the whole model and nothing else."""
        self._cleanup = contextlib.ExitStack()
        self._shapes = config.parameter_shapes()
        try:
            tensors = self._open(directory)
            prefix = "model." if "model.embed_tokens.weight" in tensors else ""
            names = {f"{prefix}{hf_name(path, config)}": path for path in self._shapes}
            self._check_tied(directory, tensors, f"{prefix}embed_tokens.weight")
            check_whole(
                directory,
                {name: tuple(part.get_shape()) for name, part in tensors.items()},
                {name: hf_shape(p, self._shapes[p]) for name, p in names.items()},
            )
            self._tensors = {names[name]: part for name, part in tensors.items()}
            self._dtypes = {
                path: _dtype(directory, path, part)
                for path, part in self._tensors.items()
            }
        except BaseException:
            self.close()
            raise

    def paths(self) -> frozenset[str]:
        """Return the variable paths."""
        return frozenset(self._shapes)

    def shape(self, path: str) -> tuple[int, ...]:
        """Return the whole shape of a variable."""
        return self._shapes[path]

    def dtype(self, path: str) -> np.dtype:
        """Return the dtype in the file."""
        return self._dtypes[path]

    def read(self, path: str, index: Index | None = None) -> np.ndarray:
        """Return a variable, or the part of it that `index` names."""
        shape = self._shapes[path]
        index = normalise_index(index, shape)
        sizes = tuple(_size(part) for part in index)
        if 0 in sizes:  # safetensors 0.8 reads an empty slice with another shape
            return np.empty(sizes, self._dtypes[path])
        return _read(self._tensors[path], path, shape, index)

    def close(self) -> None:
        """Close the files."""
        self._tensors = {}
        self._cleanup.close()

    def __enter__(self) -> Self:
        """Return the source itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        self.close()

    def _open(self, directory: epath.Path) -> dict[str, Any]:
        """Map the name of every tensor to a slice that is read on demand."""
        tensors: dict[str, Any] = {}
        for name in weight_files(directory):
            path = local_file(directory / name, self._cleanup)
            hdf5.check_signature(path, b"", kind="a safetensors file")
            try:
                file = self._cleanup.enter_context(safe_open(path, framework="np"))
            except SafetensorError as error:
                raise PresetFileError(
                    path,
                    expected="a whole safetensors file",
                    received=str(error),
                    fix="fetch the file again from where it was published",
                ) from error
            for tensor in file.keys():  # noqa: SIM118  (not a mapping)
                if not _BUFFER.fullmatch(tensor):
                    tensors[tensor] = file.get_slice(tensor)
        return tensors

    def _check_tied(
        self, directory: epath.Path, tensors: dict[str, Any], embedding: str
    ) -> None:
        """Drop a copy of the embedding that is stored as the head; refuse another."""
        head, table = tensors.pop("lm_head.weight", None), tensors.get(embedding)
        if head is None or table is None:
            return
        same = head.get_shape() == table.get_shape()
        rows, hidden = table.get_shape()
        step = max(1, _BLOCK_BYTES // (4 * hidden))
        for start in range(0, rows, step):
            if not same:
                break
            block = slice(start, min(start + step, rows))
            same = np.array_equal(head[block], table[block])
        if not same:
            raise PresetFileError(
                f"{directory}, lm_head.weight",
                expected="the embedding, which Gemma uses as its head",
                received="other values",
                fix="use a model that was trained with tied embeddings",
            )


def weight_files(directory: epath.Path) -> list[str]:
    """Return the names of the safetensors files that hold the weights.

    Raises:
        PresetFileError: There are none, or the index names something else.
    """
    if (directory / WEIGHTS_FILE).exists():
        return [WEIGHTS_FILE]
    path = directory / INDEX_FILE
    if not path.exists():
        raise PresetFileError(
            directory,
            expected=f"{WEIGHTS_FILE} or {INDEX_FILE}",
            received="neither",
            fix="convert the weights to safetensors; pickled weights are never opened",
        )
    weight_map = read_json(path).get("weight_map")
    names = set(weight_map.values()) if isinstance(weight_map, dict) else {None}
    for name in names:
        if (
            not isinstance(name, str)
            or pathlib.PurePath(name).name != name
            or not name.endswith(".safetensors")
        ):
            raise PresetFileError(
                f"{path}, weight_map",
                expected="names of .safetensors files in the same directory",
                received=repr(name),
                fix="use a file from a source that you trust",
            )
    return sorted(names)


def _dtype(directory: epath.Path, path: str, part: Any) -> np.dtype:  # noqa: ANN401
    name = part.get_dtype()
    if name not in _DTYPES:
        raise PresetFileError(
            f"{directory}, {path}",
            expected=" or ".join(_DTYPES),
            received=name,
            fix="use a model whose weights are not quantized",
        )
    return _DTYPES[name]


def _read(part: Any, path: str, shape: tuple[int, ...], index: Index) -> np.ndarray:  # noqa: ANN401
    """Read our `index` of a variable from the tensor in Hugging Face's shape.

    Source: transformers stores a projection as (out, in), heads flattened into one dim.
    """
    if path.rsplit("/", 1)[1] == "scale" or path == "token_embedding/embeddings":
        return part[index]
    layer = path.split("/")[-2]
    if layer in _HEADS_FIRST:  # (heads * head_dim, hidden) -> (heads, hidden, head_dim)
        heads, hidden, within = index
        values = part[_flat(heads, shape[2]), hidden]
        values = values.reshape(_size(heads), shape[2], _size(hidden))
        return values.transpose(0, 2, 1)[:, :, within]
    if layer == "attention_output":  # (hidden, heads * head_dim) -> (heads, .., hidden)
        heads, within, hidden = index
        values = part[hidden, _flat(heads, shape[1])]
        values = values.reshape(_size(hidden), _size(heads), shape[1])
        return values.transpose(1, 2, 0)[:, within]
    return part[index[1], index[0]].T


def _flat(heads: slice, head_dim: int) -> slice:
    return slice(heads.start * head_dim, heads.stop * head_dim)


def _size(part: slice) -> int:
    return part.stop - part.start
