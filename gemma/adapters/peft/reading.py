"""A directory of PEFT's, read as adapters of ours.

Turns `adapter_model.safetensors` and what `adapter_config.json` says of its scales
into named factors. It refuses tensors that have no place in our adapters, and never
evaluates a pattern or opens pickled weights.
"""

from __future__ import annotations

import contextlib
import math
import os

import numpy as np
from etils import epath

from gemma.adapters.factors import FACTOR_A, FACTOR_B, factor_shapes, scale_factor
from gemma.adapters.files import OTHER_BASE, Adapter
from gemma.adapters.peft import factors, names
from gemma.adapters.peft.config import MERGE_FIRST, PeftConfig, read_peft_config
from gemma.adapters.sidecar import Sidecar, read_sidecar
from gemma.config import GemmaConfig
from gemma.lora import PROJECTIONS
from gemma.presets.errors import PresetFileError
from gemma.presets.hf_weights import hf_shape
from gemma.presets.safetensors_file import open_safetensors
from gemma.presets.source import check_whole, inside, local_file

_FETCH = "fetch the directory again from where it was published"
_DTYPES = ("float32", "bfloat16", "float16", "float64")

Pairs = dict[tuple[str, str], factors.Pair]
"""(Our layer, PEFT's module) -> `lora_A` and `lora_B`, float32."""


def read_peft(directory: os.PathLike[str] | str, config: GemmaConfig) -> Adapter:
    """Read a directory that PEFT or `write_peft` wrote.

    A stranger's adapters come back in the `shared` form at the largest of their
    ranks: what a module lacks of it, or a layer of a module, is zero and stays so in
    training. Scales that differ between modules are multiplied into B. Ours come back
    as they were written.

    Raises:
        PresetFileError: The files are damaged, belong to another model, or hold what
            has no place in our adapters (bias, DoRA, embeddings, whole modules).
    """
    source = epath.Path(directory)
    described = read_peft_config(inside(source, names.CONFIG_FILE))
    weights = inside(source, names.WEIGHTS_FILE)
    if not weights.exists():
        raise PresetFileError(
            source,
            expected=names.WEIGHTS_FILE,
            received="none",
            fix="save the adapter as safetensors; pickled weights are never opened",
        )
    sidecar = read_sidecar(inside(source, names.SIDECAR_FILE), weights)
    pairs = _read_pairs(weights, described, config)
    if sidecar is None:
        return _of_any_rank(pairs, described, config)
    return _as_written(weights, pairs, described, config, sidecar)


def _of_any_rank(pairs: Pairs, described: PeftConfig, config: GemmaConfig) -> Adapter:
    """Return adapters of any ranks and scales at one rank and scale."""
    rank = max(lora_a.shape[0] for lora_a, _ in pairs.values())
    found = {names.projection_of(layer) for layer, _ in pairs}
    targets = tuple(name for name in PROJECTIONS if name in found)
    alphas = {module: described.alpha_at(module, rank) for _, module in pairs}
    same = set(alphas.values())
    alpha = same.pop() if len(same) == 1 else float(rank)
    shapes = factor_shapes(config, rank=rank, targets=targets, factorisation="shared")
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    kernels = config.parameter_shapes()
    for (layer, module), pair in pairs.items():
        kernel = kernels[f"{layer}/kernel"]
        a, b = factors.from_peft(names.projection_of(layer), kernel, *pair)
        if alphas[module] != alpha:
            b = scale_factor(b, alphas[module] / alpha)
        arrays[f"{layer}/{FACTOR_A}"][..., : a.shape[-1]] = a
        arrays[f"{layer}/{FACTOR_B}"][: b.shape[0]] = b
    return Adapter(
        arrays=arrays,
        rank=rank,
        alpha=alpha,
        targets=targets,
        factorisation="shared",
        base=described.base,
        base_hash=None,
    )


def _as_written(
    path: epath.Path,
    pairs: Pairs,
    described: PeftConfig,
    config: GemmaConfig,
    sidecar: Sidecar,
) -> Adapter:
    """Return the adapters that `write_peft` was given."""
    rank, kernels = sidecar.rank, config.parameter_shapes()
    arrays = {}
    for (layer, module), pair in pairs.items():
        name, kernel = names.projection_of(layer), kernels[f"{layer}/kernel"]
        try:
            alpha = described.alpha_at(module, rank)
            if not math.isclose(alpha, sidecar.alpha, rel_tol=1e-12):
                raise ValueError(f"{module} has another alpha in {names.CONFIG_FILE}")
            if factors.has_blocks(name, sidecar.factorisation):
                a, b = factors.from_blocks(kernel[0], rank, *pair)
            else:
                a, b = factors.from_peft(name, kernel, *pair)
        except ValueError as error:
            raise PresetFileError(
                f"{path}, {layer}",
                expected=f"the rank {rank}, alpha {sidecar.alpha} and form "
                f"{sidecar.factorisation} of {names.SIDECAR_FILE}",
                received=str(error),
                fix=f"{_FETCH}, or delete {names.SIDECAR_FILE}",
            ) from error
        arrays[f"{layer}/{FACTOR_A}"], arrays[f"{layer}/{FACTOR_B}"] = a, b
    shapes = factor_shapes(
        config,
        rank=rank,
        targets=sidecar.targets,
        factorisation=sidecar.factorisation,
    )
    found = {name: values.shape for name, values in arrays.items()}
    check_whole(path, found, shapes, fix=OTHER_BASE)
    return Adapter(
        arrays={name: arrays[name] for name in shapes},
        rank=rank,
        alpha=sidecar.alpha,
        targets=sidecar.targets,
        factorisation=sidecar.factorisation,
        base=sidecar.base,
        base_hash=sidecar.base_hash,
    )


def _read_pairs(path: epath.Path, described: PeftConfig, config: GemmaConfig) -> Pairs:
    """Read the tensors, each proven to fit the layer that it names."""
    tensors = _read_tensors(path)
    found: dict[str, dict[str, np.ndarray]] = {}
    modules: dict[str, str] = {}
    for tensor, place in names.places(config, list(tensors)).items():
        if place is None or place.factor in found.get(place.layer, {}):
            raise PresetFileError(
                f"{path}, {tensor}",
                expected="lora_A and lora_B of a projection of this model, once each",
                received="another tensor",
                fix=MERGE_FIRST,
            )
        found.setdefault(place.layer, {})[place.factor] = tensors[tensor]
        modules[place.layer] = place.module
    if not found:
        raise PresetFileError(
            path, expected="adapters", received="no tensor", fix=_FETCH
        )
    kernels = config.parameter_shapes()
    for layer, pair in found.items():
        outputs, inputs = hf_shape(f"{layer}/kernel", kernels[f"{layer}/kernel"])
        rank = described.rank_of(modules[layer])
        check_whole(
            f"{path}, {modules[layer]}",
            {factor: values.shape for factor, values in pair.items()},
            {"A": (rank, inputs), "B": (outputs, rank)},
            fix=OTHER_BASE,
        )
    return {(layer, modules[layer]): (p["A"], p["B"]) for layer, p in found.items()}


def _read_tensors(path: epath.Path) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file as float32."""
    with contextlib.ExitStack() as cleanup:
        tensors = open_safetensors(local_file(path, cleanup))
        for name, values in tensors.items():
            if values.dtype.name not in _DTYPES:
                raise PresetFileError(
                    f"{path}, {name}",
                    expected=f"factors in {', '.join(_DTYPES)}",
                    received=values.dtype.name,
                    fix=MERGE_FIRST,
                )
        return {name: np.array(values, np.float32) for name, values in tensors.items()}
