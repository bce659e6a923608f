"""Assembles the model of a run: abstract backbone, placement, arrays, functions.

Turns `preset`, `lora` and a mesh into a `Model`, which owns no arrays twice: frozen
and trainable weights lie in one state tree, the Keras backbone stays empty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from gemma.abstract import build_abstract, is_abstract
from gemma.adapters import Adapter
from gemma.attention import Attention
from gemma.backbones.backbone import Backbone
from gemma.backbones.families import backbone_class
from gemma.config import EMBEDDING
from gemma.lora import LoraSettings
from gemma.presets import Preset
from gemma.quantized.grid import Quantization
from gemma.quantized.source import QuantizedWeights
from gemma.stacked import Stacked, StackedVariable, should_scan_stretches
from trainer.model.adapters import check_base, hash_of_arrays, hash_of_files
from trainer.model.placement import Placement, check_all_large_are_split, place
from trainer.model.state import (
    Arrays,
    arrays_from_members,
    load_arrays,
    random_arrays,
)

if TYPE_CHECKING:
    from keras.dtype_policies import DTypePolicyMap


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A model on a mesh.

    Attributes:
        stacked: Pure functions over the state tree, under the mesh's constraints.
        placement: Where each array lies.
        trainable: Paths of the arrays that are trained, in the tree's order.
        lora: Settings of the adapters; None without adapters.
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
    def trains_embedding(self) -> bool:
        """Whether the embedding is trained, beside adapters or with all weights."""
        return EMBEDDING in self.trainable

    @property
    def has_only_adapters(self) -> bool:
        """Whether adapters are all that is trained, so that their file has it all."""
        return self.lora is not None and not self.trains_embedding

    @property
    def quantization(self) -> Quantization | None:
        """How the base is kept, `int8` or `int4`; None for floats."""
        return self.stacked.backbone.quantization

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

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Return shape, dtype and sharding of every array of the tree."""
        return {
            path: jax.ShapeDtypeStruct(
                variable.shape,
                variable.dtype,
                sharding=self.placement.sharding(variable),
            )
            for path, variable in self.tree.items()
        }


def build_model(
    preset: Preset,
    mesh: Mesh,
    *,
    dtype: str,
    lora: LoraSettings | None,
    train_embedding: bool = False,
    quantize: Quantization | None = None,
    attend: Attention | None = None,
) -> Model:
    """Build a model's functions and shardings, without any array.

    Args:
        preset: An opened preset.
        mesh: Mesh of `batch` x `model`.
        dtype: Of frozen weights and computation.
        lora: Adapters to train; None trains all weights, kept in float32.
        train_embedding: Train the embedding beside adapters, kept in float32.
        quantize: Keep the base in 8 or 4 bits; then nothing but adapters is trained.
        attend: How tokens attend to each other; None: what suits the mesh's devices.
    """
    placement = place(mesh, preset.config, lora)
    is_frozen = lora is not None or quantize is not None
    policy = _policy(dtype, is_frozen=is_frozen, train_embedding=train_embedding)
    backbone = build_abstract(lambda: _backbone(preset, policy, lora, quantize))
    assert is_abstract(backbone.variables)
    stacked = Stacked(backbone)
    check_all_large_are_split(stacked.tree, placement)
    stacked = Stacked(
        backbone,
        placement.constraints(stacked.tree),
        attend or Attention.on_mesh(mesh),
        scans_stretches=should_scan_stretches(
            mesh.devices.flat[0].platform, is_frozen=is_frozen
        ),
    )
    also = {EMBEDDING} if train_embedding else set()
    trainable = tuple(
        p for p, v in stacked.tree.items() if v.is_adapter or not is_frozen or p in also
    )
    return Model(
        stacked=stacked,
        placement=placement,
        trainable=trainable,
        lora=lora,
        preset=preset,
    )


def initial_arrays(
    model: Model,
    *,
    load_weights: bool,
    adapter: Adapter | None,
    seed: int,
    only_frozen: bool = False,
) -> Arrays:
    """Return every array of the tree: weights, and adapters new or read from a file.

    Args:
        model: What they are for.
        load_weights: Read the preset's; false draws them.
        adapter: What the adapters start from; None draws them.
        seed: Of what is drawn.
        only_frozen: Leave out what is trained, since it is restored.

    Raises:
        PresetError: The adapters were trained on another base.
    """
    sharding = model.placement.sharding
    restored = set(model.trainable) if only_frozen else set()
    tree = {path: v for path, v in model.tree.items() if path not in restored}
    weights = {p: v for p, v in tree.items() if not v.is_adapter}
    adapters = {p: v for p, v in tree.items() if v.is_adapter}
    if load_weights:
        arrays = {}
        if weights:
            with model.preset.weights() as source:
                check_base(
                    adapter, model.preset, lambda: hash_of_files(model.preset, source)
                )
                if model.quantization is not None:
                    source = QuantizedWeights(source, model.quantization)
                left_out = {
                    p: v
                    for p, v in model.tree.items()
                    if p in restored and not v.is_adapter
                }
                arrays = load_arrays(weights, source, sharding, left_out=left_out)
    else:
        arrays = random_arrays(weights, sharding, seed=seed)
        check_base(adapter, model.preset, lambda: _hash_of_arrays(model, arrays))
    if adapter is None:
        return arrays | random_arrays(adapters, sharding, seed=seed)
    return arrays | arrays_from_members(adapters, adapter.arrays, sharding)


def hash_of_base(model: Model, arrays: Arrays, *, load_weights: bool) -> str:
    """Return the hash of what the adapters of a model stand beside.

    Args:
        model: The model.
        arrays: Its arrays.
        load_weights: The base is the preset's, whose files have the float weights.
    """
    if not load_weights:
        return _hash_of_arrays(model, arrays)
    with model.preset.weights() as source:
        return hash_of_files(model.preset, source)


def _hash_of_arrays(model: Model, arrays: Arrays) -> str:
    everywhere = model.placement.replicated()
    return hash_of_arrays(model.preset, model.tree, arrays, everywhere)


def _policy(
    dtype: str, *, is_frozen: bool, train_embedding: bool
) -> str | DTypePolicyMap:
    """Return the dtypes of the layers: what is trained is kept in float32."""
    trained = f"mixed_{dtype}" if dtype != "float32" else dtype
    if not is_frozen:
        return trained
    if not train_embedding:
        return dtype
    # not above: gemma chooses Keras's backend, or refuses the one that was chosen
    from keras.dtype_policies import DTypePolicy, DTypePolicyMap

    policy = DTypePolicyMap(default_policy=dtype)
    policy[EMBEDDING.partition("/")[0]] = DTypePolicy(trained)
    return policy


def _backbone(
    preset: Preset,
    policy: str | DTypePolicyMap,
    lora: LoraSettings | None,
    quantize: Quantization | None,
) -> Backbone:
    backbone = backbone_class(preset.config)(**preset.config.to_mapping(), dtype=policy)
    if quantize:
        backbone.quantize(quantize)
    if lora:
        backbone.enable_lora(
            lora.rank,
            lora.targets,
            alpha=lora.alpha,
            factorisation=lora.factorisation,
            dropout=lora.dropout,
        )
    return backbone


def split(arrays: Arrays, model: Model) -> tuple[Arrays, Arrays]:
    """Return the trainable and the frozen arrays."""
    chosen = set(model.trainable)
    trainable = {p: arrays[p] for p in model.trainable if p in arrays}
    frozen = {path: a for path, a in arrays.items() if path not in chosen}
    return trainable, frozen
