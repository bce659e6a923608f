"""A directory for PEFT, written from named factors.

Turns factors and settings into the files that `peft.PeftModel.from_pretrained` reads.
It refuses to know where the factors come from, and changes none of their products.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

import numpy as np
import safetensors.numpy
from etils import epath

from gemma.adapters.factors import FACTOR_A, FACTOR_B, factor_shapes
from gemma.adapters.files import OTHER_FACTORS
from gemma.adapters.peft import factors, names
from gemma.adapters.peft.config import PeftConfig
from gemma.adapters.sidecar import Sidecar, write_sidecar
from gemma.config import GemmaConfig
from gemma.lora import Factorisation, lora_settings
from gemma.presets.source import check_whole


def write_peft(
    directory: os.PathLike[str] | str,
    adapters: Mapping[str, np.ndarray],
    *,
    config: GemmaConfig,
    rank: int,
    alpha: float,
    targets: Sequence[str],
    factorisation: Factorisation = "keras",
    dropout: float = 0.0,
    base: str | None = None,
    base_hash: str | None = None,
) -> None:
    """Write a directory for PEFT; `adapter_config.json` comes last.

    Under `shared` every module keeps its rank. Under `keras`, query, key and value
    have an A for each of n heads: they are written as n blocks of the rank, and
    `rank_pattern` and `alpha_pattern` give them n * rank and n * alpha.

    Raises:
        ValueError: A setting is impossible, or a factor's shape is not as stated.
    """
    settings = lora_settings(
        rank, alpha=alpha, targets=targets, factorisation=factorisation, dropout=dropout
    )
    sidecar = Sidecar(
        rank=rank,
        alpha=settings.alpha,
        targets=settings.targets,
        factorisation=factorisation,
        base=base,
        base_hash=base_hash,
    )
    tensors, ranks = _tensors(adapters, config, sidecar)
    content = safetensors.numpy.save(tensors, metadata={"format": "pt"})
    described = PeftConfig(
        rank=rank,
        alpha=settings.alpha,
        rank_pattern=ranks,
        alpha_pattern={m: settings.alpha * r / rank for m, r in ranks.items()},
        base=_repository(base),
    )
    modules = [names.module_name(name) for name in settings.targets]
    target = epath.Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    (target / names.CONFIG_FILE).unlink(missing_ok=True)
    (target / names.WEIGHTS_FILE).write_bytes(content)
    write_sidecar(target / names.SIDECAR_FILE, sidecar, content)
    values = described.to_json(modules, dropout=dropout)
    (target / names.CONFIG_FILE).write_text(json.dumps(values, indent=2) + "\n")


def _repository(base: str | None) -> str | None:
    """Return a base's name as PEFT looks for it: a handle without its revision."""
    if base is None or not base.startswith("hf://"):
        return base
    return base.removeprefix("hf://").partition("@")[0]


def _tensors(
    adapters: Mapping[str, np.ndarray], config: GemmaConfig, sidecar: Sidecar
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Return the tensors by name, and the rank of each module that has another."""
    shapes = factor_shapes(
        config,
        rank=sidecar.rank,
        targets=sidecar.targets,
        factorisation=sidecar.factorisation,
    )
    check_whole(
        "adapters",
        {n: v.shape for n, v in adapters.items()},
        shapes,
        fix=OTHER_FACTORS,
    )
    tensors: dict[str, np.ndarray] = {}
    ranks: dict[str, int] = {}
    for layer, module in names.layers_of(config, sidecar.targets):
        name = names.projection_of(layer)
        a = np.asarray(adapters[f"{layer}/{FACTOR_A}"], np.float32)
        b = np.asarray(adapters[f"{layer}/{FACTOR_B}"], np.float32)
        lora_a, lora_b = factors.to_peft(name, a, b)
        tensors[names.tensor_name(module, "A")] = lora_a
        tensors[names.tensor_name(module, "B")] = lora_b
        if lora_a.shape[0] != sidecar.rank:
            ranks[names.module_name(name)] = lora_a.shape[0]
    return tensors, ranks
