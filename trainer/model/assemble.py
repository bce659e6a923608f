"""Assembles the model of a run: abstract backbone, placement, arrays, functions.

Turns `preset`, `lora` and a mesh into a `Model`, which owns no arrays twice: frozen
and trainable weights lie in one state tree, the Keras backbone stays empty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from jax.sharding import Mesh, NamedSharding

from gemma.abstract import build_abstract, is_abstract
from gemma.adapters import Adapter, read_lora
from gemma.backbones.backbone import Backbone
from gemma.backbones.gemma_backbone import GemmaBackbone
from gemma.lora import LoraSettings, lora_settings
from gemma.presets import Preset
from gemma.stacked import Stacked, StackedVariable
from trainer.config.errors import ConfigError
from trainer.config.schema import LoraConfig
from trainer.model.placement import Placement, check_all_large_are_split, place
from trainer.model.state import (
    Arrays,
    arrays_from_members,
    load_arrays,
    random_arrays,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A model on a mesh.

    Attributes:
        stacked: Pure functions over the state tree, under the mesh's constraints.
        placement: Where each array lies.
        trainable: Paths of the arrays that are trained, in the tree's order.
        lora: Settings of the adapters; None when all weights are trained.
        vocabulary: SentencePiece model of the preset.
        preset: What it was made from.
    """

    stacked: Stacked
    placement: Placement
    trainable: tuple[str, ...]
    lora: LoraSettings | None
    preset: Preset

    @property
    def tree(self) -> dict[str, StackedVariable]:
        """The state tree."""
        return self.stacked.tree

    @property
    def parameter_count(self) -> int:
        """Parameters without adapters."""
        return self.stacked.config.parameter_count

    @property
    def trainable_count(self) -> int:
        """Parameters that are trained."""
        return sum(int(np.prod(self.tree[path].shape)) for path in self.trainable)

    def shardings(self, paths: Iterable[str] | None = None) -> dict[str, NamedSharding]:
        """Return the shardings of some paths, or of all."""
        chosen = self.tree if paths is None else paths
        return {path: self.placement.sharding(self.tree[path]) for path in chosen}


def build_model(
    preset: Preset, mesh: Mesh, *, dtype: str, lora: LoraSettings | None
) -> Model:
    """Build a model's functions and shardings, without any array.

    Args:
        preset: An opened preset.
        mesh: Mesh of `batch` x `model`.
        dtype: Of frozen weights and computation.
        lora: Adapters to train; None trains all weights, kept in float32.
    """
    placement = place(mesh, preset.config)
    policy = dtype if lora or dtype == "float32" else f"mixed_{dtype}"
    backbone = build_abstract(lambda: _backbone(preset, policy, lora))
    assert is_abstract(backbone.variables)
    stacked = Stacked(backbone)
    check_all_large_are_split(stacked.tree, placement)
    stacked = Stacked(backbone, placement.constraints(stacked.tree))
    trainable = tuple(p for p, v in stacked.tree.items() if v.is_adapter or not lora)
    return Model(
        stacked=stacked,
        placement=placement,
        trainable=trainable,
        lora=lora,
        preset=preset,
    )


def initial_arrays(
    model: Model, *, load_weights: bool, adapter: Adapter | None, seed: int
) -> Arrays:
    """Return every array of the tree: weights, and adapters new or read from a file."""
    sharding = model.placement.sharding
    weights = {p: v for p, v in model.tree.items() if not v.is_adapter}
    adapters = {p: v for p, v in model.tree.items() if v.is_adapter}
    if load_weights:
        with model.preset.weights() as source:
            arrays = load_arrays(weights, source, sharding)
    else:
        arrays = random_arrays(weights, sharding, seed=seed)
    if adapter is None:
        return arrays | random_arrays(adapters, sharding, seed=seed)
    return arrays | arrays_from_members(adapters, adapter.arrays, sharding)


def adapter_settings(
    config: LoraConfig, preset: Preset
) -> tuple[LoraSettings | None, Adapter | None]:
    """Return the adapters that `lora.*` asks for, and the file to start from.

    Raises:
        ConfigError: A value is impossible, or differs from the file's.
    """
    if config.rank == 0:
        return None, None
    try:
        settings = lora_settings(
            config.rank,
            alpha=config.alpha,
            targets=config.targets,
            factorisation=config.factorisation,
            dropout=config.dropout,
        )
    except ValueError as error:
        raise ConfigError(
            key="lora",
            expected="possible adapters",
            received=str(error),
            fix="lora=rank8",
        ) from error
    if config.path is None:
        return settings, None
    adapter = read_lora(config.path, preset.config)
    return lora_settings(
        adapter.rank,
        alpha=adapter.alpha,
        targets=adapter.targets,
        factorisation=adapter.factorisation,
        dropout=config.dropout,
    ), adapter


def _backbone(preset: Preset, policy: str, lora: LoraSettings | None) -> Backbone:
    backbone = GemmaBackbone(**preset.config.to_mapping(), dtype=policy)
    if lora:
        backbone.enable_lora(
            lora.rank,
            lora.targets,
            lora_alpha=lora.alpha,
            factorisation=lora.factorisation,
            dropout=lora.dropout,
        )
    return backbone


def split(arrays: Arrays, model: Model) -> tuple[Arrays, Arrays]:
    """Return the trainable and the frozen arrays."""
    chosen = set(model.trainable)
    trainable = {path: arrays[path] for path in model.trainable}
    frozen = {path: a for path, a in arrays.items() if path not in chosen}
    return trainable, frozen
