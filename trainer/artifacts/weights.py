"""Adapters and full models out of the state tree, one layer at a time.

Turns stacked arrays into the files of KerasHub, Hugging Face and PEFT. A full model
has its adapters merged in float32 and is rounded once, when it is written.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from gemma.adapters import write_lora, write_peft
from gemma.arrays import fetch
from gemma.backbones.quantized_methods import FloatBase
from gemma.layers.projection import merge_adapter
from gemma.presets import write_hf, write_preset
from trainer.distribution.exchange import from_primary
from trainer.distribution.primary import Read, write_on_primary
from trainer.model.assemble import Model

ADAPTER_FILE = "adapter.lora.h5"


def write_adapter(
    directory: epath.PathLike,
    model: Model,
    arrays: Mapping[str, jax.Array],
    *,
    base_hash: str,
) -> epath.Path:
    """Write `adapter.lora.h5` and `adapter.json`; return the former's path."""
    path = epath.Path(directory) / ADAPTER_FILE
    factors = _factors(model, arrays)
    described = _description(model, base_hash)
    from_primary("the adapter", lambda: write_lora(path, factors, **described))
    return path


def write_peft_adapter(
    directory: epath.PathLike,
    model: Model,
    arrays: Mapping[str, jax.Array],
    *,
    base_hash: str,
) -> None:
    """Write the adapter for PEFT, beside transformers' model of the same base."""
    factors, dropout = _factors(model, arrays), model.lora.dropout
    described = _description(model, base_hash)
    from_primary(
        "the adapter",
        lambda: write_peft(directory, factors, dropout=dropout, **described),
    )


def write_full_preset(
    directory: epath.PathLike,
    model: Model,
    arrays: Mapping[str, jax.Array],
    *,
    dtype: str,
    sequence_length: int,
) -> None:
    """Write the whole model, adapters merged, in KerasHub's form."""

    def write(read: Read) -> None:
        whole = _whole(model, dtype)
        write_preset(directory, arrays=read, sequence_length=sequence_length, **whole)

    write_on_primary("the full preset", write, _reader(model, arrays))


def write_full_hf(
    directory: epath.PathLike,
    model: Model,
    arrays: Mapping[str, jax.Array],
    *,
    dtype: str,
) -> None:
    """Write the whole model, adapters merged, in Hugging Face's form."""

    def write(read: Read) -> None:
        write_hf(directory, arrays=read, **_whole(model, dtype))

    write_on_primary("the full model", write, _reader(model, arrays))


def merged(
    model: Model, arrays: Mapping[str, jax.Array], path: str, layer: int | None
) -> jax.Array:
    """Return the array at a tree's path, or its layer, with its adapter merged."""
    value = arrays[path] if layer is None else arrays[path][layer]
    factor = path.replace("/kernel", "/lora_kernel_a")
    if factor == path or factor not in arrays:
        return value
    a = arrays[factor][layer]
    b = arrays[path.replace("/kernel", "/lora_kernel_b")][layer]
    return merge_adapter(value, a, b, scale=model.lora.scale)


def merged_tree(
    model: Model, arrays: Mapping[str, jax.Array], dtype: str
) -> dict[str, jax.Array]:
    """Return the tree with adapters merged, rounded once to `dtype`, and switched off.

    What the full preset holds, in the form that the model's own functions take: for
    measuring what merging and rounding changed. `arrays` are donated.
    """

    def merge(path: str, value: jax.Array) -> jax.Array:
        variable = model.tree[path]
        if path.endswith("/lora_kernel_b"):
            return jnp.zeros_like(value)
        factor = path.replace("/kernel", "/lora_kernel_a")
        if not path.endswith("/kernel") or factor not in arrays:
            return value if variable.is_adapter else value.astype(dtype)
        b = arrays[path.replace("/kernel", "/lora_kernel_b")]
        join = functools.partial(merge_adapter, scale=model.lora.scale)
        return jax.vmap(join)(value, arrays[factor], b).astype(dtype)

    def merge_all(arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {p: merge(p, a).astype(a.dtype) for p, a in arrays.items()}

    shardings = model.shardings(arrays)
    return jax.jit(merge_all, out_shardings=shardings, donate_argnums=0)(arrays)


def _places(model: Model) -> dict[str, tuple[str, int | None]]:
    """Map every weight's path to its stacked array and its layer there."""
    return {
        member.path: (name, layer if variable.is_stacked else None)
        for name, variable in model.tree.items()
        if not variable.is_adapter
        for layer, member in enumerate(variable.members)
    }


def _whole(model: Model, dtype: str) -> dict[str, Any]:
    """Return what the writer of a full model needs, whatever its form."""
    return {
        "config": model.stacked.config,
        "dtype": dtype,
        "vocabulary": model.preset.vocabulary(),
    }


def _reader(model: Model, arrays: Mapping[str, jax.Array]) -> Read:
    """Return what gives each weight with its adapter merged.

    The float weights of a quantized model are read from its preset again.
    """
    if model.quantization is None:
        places = _places(model)
        return lambda path: fetch(merged(model, arrays, *places[path]))
    base, factors = FloatBase(model.preset, expected_hash=None), _factors(model, arrays)
    return lambda path: base.merged(path, factors, model.lora)


def _factors(model: Model, arrays: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
    """Return every factor by the path of its variable."""
    return {
        member.path: fetch(arrays[name][layer])
        for name, variable in model.tree.items()
        if variable.is_adapter
        for layer, member in enumerate(variable.members)
    }


def _description(model: Model, base_hash: str) -> dict[str, Any]:
    """Return what the files of an adapter say beside its factors."""
    return {
        "config": model.stacked.config,
        "rank": model.lora.rank,
        "alpha": model.lora.alpha,
        "targets": model.lora.targets,
        "factorisation": model.lora.factorisation,
        "base": model.preset.name,
        "base_hash": base_hash,
    }
