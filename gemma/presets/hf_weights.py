"""Hugging Face's safetensors of Gemma's text models, seen as arrays.

Turns one file or an index of several into a source of arrays under our variable paths,
each a view in our order of dims. It refuses a tensor that belongs to no variable,
leaves alone those of a vision tower, and knows no other file format: weights that need
pickle are never opened.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable

import numpy as np
from etils import epath

from gemma.config import HEADS_FIRST, GemmaConfig
from gemma.presets.errors import PresetFileError
from gemma.presets.file_weights import FileWeights
from gemma.presets.safetensors_file import open_safetensors
from gemma.presets.source import OTHER_CONFIG, check_whole, inside, local_file
from gemma.presets.weight_index import indexed_files

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_DTYPES = ("float32", "bfloat16", "float16")
_PREFIXES = ("model.", "", "model.language_model.", "language_model.model.")
"""What may stand before a tensor's name; the last two in multimodal directories."""
_VISION = re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\..*")
_HEADS = ("lm_head.weight", "language_model.lm_head.weight")
_PROJECTIONS = {
    "attention/query/kernel": "self_attn.q_proj",
    "attention/key/kernel": "self_attn.k_proj",
    "attention/value/kernel": "self_attn.v_proj",
    "attention/query_norm/scale": "self_attn.q_norm",
    "attention/key_norm/scale": "self_attn.k_norm",
    "attention/attention_output/kernel": "self_attn.o_proj",
    "ffw_gating/kernel": "mlp.gate_proj",
    "ffw_gating_2/kernel": "mlp.up_proj",
    "ffw_linear/kernel": "mlp.down_proj",
    "pre_attention_norm/scale": "input_layernorm",
    "post_attention_norm/scale": "post_attention_layernorm",
    "pre_ffw_norm/scale": "pre_feedforward_layernorm",
    "post_ffw_norm/scale": "post_feedforward_layernorm",
}
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


def from_hf(path: str, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a view of `tensor` as the variable `path` of `shape`.

    Source: transformers stores a projection as (out, in), heads flattened into one dim.
    """
    if _is_same(path):
        return tensor
    layer = path.split("/")[-2]
    if layer in HEADS_FIRST:  # (heads * head_dim, hidden)
        heads, hidden, head_dim = shape
        return tensor.reshape(heads, head_dim, hidden).transpose(0, 2, 1)
    if layer == "attention_output":  # (hidden, heads * head_dim)
        return tensor.T.reshape(shape)
    return tensor.T


def to_hf(path: str, values: np.ndarray) -> np.ndarray:
    """Return a variable as Hugging Face stores it: the inverse of `from_hf`."""
    if _is_same(path):
        return values
    layer = path.split("/")[-2]
    if layer in HEADS_FIRST:
        return values.transpose(0, 2, 1).reshape(hf_shape(path, values.shape))
    if layer == "attention_output":
        return values.reshape(-1, values.shape[-1]).T
    return values.T


def hf_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape in which Hugging Face stores a variable of `shape`."""
    if _is_same(path):
        return shape
    layer = path.split("/")[-2]
    if layer in HEADS_FIRST:
        heads, hidden, head_dim = shape
        return (heads * head_dim, hidden)
    if layer == "attention_output":
        heads, head_dim, hidden = shape
        return (hidden, heads * head_dim)
    return shape[::-1]


def _is_same(path: str) -> bool:
    """Return whether both forms store a variable alike."""
    return path.endswith("/scale") or path == "token_embedding/embeddings"


def open_hf_weights(directory: epath.Path, config: GemmaConfig) -> FileWeights:
    """Open the files and prove that they hold the whole model and nothing else.

    Raises:
        PresetFileError: They do not, or one of them is no whole safetensors file.
    """
    shapes = config.parameter_shapes()
    with contextlib.ExitStack() as cleanup:
        tensors = _open(directory, cleanup)
        prefix = _prefix(tensors)
        if prefix in _PREFIXES[2:]:
            tensors = {n: t for n, t in tensors.items() if not _VISION.fullmatch(n)}
        names = {f"{prefix}{hf_name(path, config)}": path for path in shapes}
        _check_tied(directory, tensors, f"{prefix}embed_tokens.weight")
        check_whole(
            directory,
            {name: tensor.shape for name, tensor in tensors.items()},
            {name: hf_shape(path, shapes[path]) for name, path in names.items()},
            fix=OTHER_CONFIG,
        )
        _check_dtypes(directory, tensors)
        stored = {
            path: from_hf(path, tensors[name], shapes[path])
            for name, path in names.items()
        }
        return FileWeights(shapes, stored, cleanup.pop_all())


def _open(
    directory: epath.Path, cleanup: contextlib.ExitStack
) -> dict[str, np.ndarray]:
    """Map the name of every tensor to a view of it."""
    tensors: dict[str, np.ndarray] = {}
    for name in weight_files(directory):
        found = open_safetensors(local_file(inside(directory, name), cleanup))
        if twice := sorted(tensors.keys() & found.keys()):
            raise PresetFileError(
                directory,
                expected="every tensor once",
                received=f"{twice[0]} in several files",
                fix="fetch the directory again from where it was published",
            )
        tensors |= found
    return {n: t for n, t in tensors.items() if not _BUFFER.fullmatch(n)}


def _prefix(names: Iterable[str]) -> str:
    """Return what stands before the tensors' names, the usual prefix if unknown."""
    found = (p for p in _PREFIXES if f"{p}embed_tokens.weight" in names)
    return next(found, _PREFIXES[0])


def _check_tied(
    directory: epath.Path, tensors: dict[str, np.ndarray], embedding: str
) -> None:
    """Drop a copy of the embedding that is stored as the head; refuse another."""
    table = tensors.get(embedding)
    for name in _HEADS:
        head = tensors.pop(name, None)
        if head is None or table is None or _are_equal(head, table):
            continue
        raise PresetFileError(
            f"{directory}, {name}",
            expected="the embedding, which Gemma uses as its head",
            received="other values",
            fix="use a model that was trained with tied embeddings",
        )


def _are_equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Compare in blocks of rows, so that no copy of an embedding is made."""
    if one.shape != other.shape or one.dtype != other.dtype or one.ndim != 2:
        return False
    step = max(1, _BLOCK_BYTES // max(1, one[:1].nbytes))
    blocks = (slice(start, start + step) for start in range(0, len(one), step))
    return all(np.array_equal(one[block], other[block]) for block in blocks)


def _check_dtypes(directory: epath.Path, tensors: dict[str, np.ndarray]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype.name not in _DTYPES:
            raise PresetFileError(
                f"{directory}, {name}",
                expected=" or ".join(_DTYPES),
                received=tensor.dtype.name,
                fix="use a model whose weights are not quantized",
            )


def weight_files(directory: epath.Path) -> list[str]:
    """Return the names of the safetensors files that hold the weights.

    Raises:
        PresetFileError: There are none, or the index names something else.
    """
    return indexed_files(
        directory,
        single=WEIGHTS_FILE,
        index=INDEX_FILE,
        fix="convert the weights to safetensors; pickled weights are never opened",
    )
