"""The adapter methods of a backbone: made, merged, saved, loaded.

Turns LoRA settings into trainable factors beside frozen kernels, and factors into
files and back. It refuses to know how files are laid out (`gemma.adapters`) and how a
factor computes (`gemma.layers.projection`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from gemma.adapters import (
    Adapter,
    base_hash,
    read_lora,
    read_peft,
    write_lora,
    write_peft,
)
from gemma.config import GemmaConfig
from gemma.layers.decoder_block import GemmaDecoderBlock
from gemma.layers.projection import Projection, Unmerged
from gemma.layout import teach_layout_map
from gemma.lora import Factorisation, LoraSettings, lora_settings


class AdapterMethods:
    """What `Backbone` can do with adapters; mixed into it.

    Attributes:
        gemma_config: Its dimensions.
        blocks: Its decoder blocks, first layer first.
        lora: Settings of its adapters; None without adapters.
        preset_name: Preset that its weights came from; None for random weights.
    """

    gemma_config: GemmaConfig
    blocks: list[GemmaDecoderBlock]
    lora: LoraSettings | None = None
    preset_name: str | None = None
    _unmerged: _Kept | None = None

    def enable_lora(
        self,
        rank: int,
        targets: Iterable[str] | None = None,
        *,
        alpha: float | None = None,
        dropout: float = 0.0,
        factorisation: Factorisation = "keras",
        target_layer_names: Iterable[str] | None = None,
    ) -> None:
        """Freeze all weights and add trainable adapters of the given rank.

        Adapters are float32 whatever the dtype of the base, and change nothing until
        they are trained: B is zero.

        Args:
            rank: Inner dimension.
            targets: fnmatch patterns of the projections that get adapters in every
                block (`gemma.lora.PROJECTIONS`); query and value by default.
            alpha: Adapters are scaled by alpha / rank; `rank` by default.
            dropout: On the adapters' inputs, while training.
            factorisation: `keras` has an A for every head of query, key and value;
                `shared` has one A for all heads, as PEFT.
            target_layer_names: KerasHub's name for `targets`.

        Raises:
            ValueError: Adapters exist already, or a setting is impossible.
        """
        if self.lora is not None:
            raise ValueError(
                f"the backbone has adapters of rank {self.lora.rank} already; "
                "build a new one for others"
            )
        if targets is not None and target_layer_names is not None:
            raise ValueError(
                "targets and target_layer_names are two names of one argument, "
                f"received both {targets!r} and {target_layer_names!r}"
            )
        settings = lora_settings(
            rank,
            alpha=alpha,
            targets=target_layer_names if targets is None else targets,
            factorisation=factorisation,
            dropout=dropout,
        )
        teach_layout_map(self.gemma_config, settings)  # large factors are split too
        for layer in self._flatten_layers(include_self=False):
            layer.trainable = False
        for block in self.blocks:
            _enable_block_lora(block, settings)
        self.lora = settings

    def merge_lora(self) -> None:
        """Add the adapters to the kernels in float32, rounded once to their dtype.

        The adapters stay, empty and frozen. The kernels as they were, and the factors
        B, are kept in host memory until `unmerge_lora`: subtracting would not give
        the same bits back, in bfloat16 not even the same numbers.

        Raises:
            ValueError: There are no adapters, or they are merged already.
        """
        self._require_adapters("merge")
        if self._unmerged is not None:
            raise ValueError("the adapters are merged already; call unmerge_lora first")
        self._unmerged = _Kept({p.path: p.merge() for p in self._adapted()})

    def unmerge_lora(self) -> None:
        """Put kernels and adapters back as they were, bit for bit.

        Raises:
            ValueError: The adapters are not merged.
        """
        if self._unmerged is None:
            raise ValueError("the adapters are not merged; call merge_lora first")
        for projection in self._adapted():
            projection.unmerge(self._unmerged.by_path[projection.path])
        self._unmerged = None

    def base_hash(self) -> str | None:
        """Return the hash of the weights without adapters (`gemma.adapters.base`).

        Of a quantized model it is the hash of the float weights that were quantized,
        which its adapters are merged into; None where those had no values. In float16
        a base has another hash than in float32 and bfloat16: adapters know none there.
        """
        if self.quantization is not None:
            return self.float_hash
        variables = {v.path: v for v in self.weights}
        merged = {} if self._unmerged is None else self._unmerged.by_path

        def read(path: str, index: tuple[slice, ...]) -> np.ndarray:
            layer = path.removesuffix("/kernel")
            if layer in merged:
                return merged[layer].kernel[index]
            return np.asarray(variables[path].value[index])

        return base_hash(self.gemma_config, read)

    def save_lora_weights(self, filepath: str) -> None:
        """Write the adapters as KerasHub's `.lora.h5`, with `adapter.json` beside it.

        Raises:
            ValueError: There are no adapters, or the name ends otherwise.
        """
        write_lora(filepath, self._factors("save"), **self._description())

    def load_lora_weights(self, filepath: str) -> None:
        """Read adapters from a `.lora.h5`; add them first where there are none.

        Raises:
            PresetFileError: The file is damaged, or belongs to another model or to
                other weights.
            ValueError: Rank, targets or factorisation differ from the model's, or the
                adapters are merged.
        """
        self._load(filepath, read_lora(filepath, self.gemma_config))

    def save_peft_adapter(self, directory: str) -> None:
        """Write the adapters as PEFT's directory, for transformers' model of the base.

        Exact at the rank for `shared` factors. `keras` factors have an A for every
        head: query, key and value become blocks, at rank times heads, and
        `rank_pattern` and `alpha_pattern` in `adapter_config.json` say so.

        Raises:
            ValueError: There are no adapters.
        """
        write_peft(
            directory,
            self._factors("save"),
            dropout=self.lora.dropout,
            **self._description(),
        )

    def load_peft_adapter(self, directory: str) -> None:
        """Read adapters from PEFT's directory; add them first where there are none.

        Adapters that PEFT trained are `shared`, at the largest of their ranks. Those
        of `save_peft_adapter` come back as they were. A dropout does not: it belongs to
        a training, so call `enable_lora` with one before.

        Raises:
            PresetFileError: The files are damaged, belong to another model or other
                weights, or hold what our adapters have no place for.
            ValueError: Rank, targets or factorisation differ from the model's, or the
                adapters are merged.
        """
        self._load(directory, read_peft(directory, self.gemma_config))

    def _load(self, origin: str, adapter: Adapter) -> None:
        if self._unmerged is not None:
            raise ValueError(
                f"the adapters are merged; call unmerge_lora before loading {origin}"
            )
        found = adapter.base_hash and self._known_base_hash()
        if found:
            name = self.preset_name or "a model of random weights"
            adapter.check_base(origin, base=name, base_hash=found)
        if self.lora is None:
            self.enable_lora(
                adapter.rank,
                adapter.targets,
                alpha=adapter.alpha,
                factorisation=adapter.factorisation,
            )
        self._assign(origin, adapter)

    def _assign(self, origin: str, adapter: Adapter) -> None:
        if self.lora.rank != adapter.rank:
            raise ValueError(
                f"ranks must match: the model's adapters have rank {self.lora.rank}, "
                f"{origin} has rank {adapter.rank}"
            )
        ours = (self.lora.targets, self.lora.factorisation)
        if ours != (adapter.targets, adapter.factorisation):
            raise ValueError(
                f"targets and factorisation must match: the model adapts "
                f"{', '.join(ours[0])} ({ours[1]}), {origin} adapts "
                f"{', '.join(adapter.targets)} ({adapter.factorisation})"
            )
        # the file's own scale alpha / rank may differ from the model's
        rescale = adapter.alpha / adapter.rank / self.lora.scale
        for variable in self._adapter_variables():
            factor = rescale if variable.path.endswith("lora_kernel_b") else 1.0
            variable.assign(adapter.arrays[variable.path] * factor)

    def _description(self) -> dict[str, Any]:
        """Return what files say of the adapters beside their factors."""
        return {
            "config": self.gemma_config,
            "rank": self.lora.rank,
            "alpha": self.lora.alpha,
            "targets": self.lora.targets,
            "factorisation": self.lora.factorisation,
            "base": self.preset_name,
            "base_hash": self._known_base_hash(),
        }

    def _known_base_hash(self) -> str | None:
        """Return the hash of the base; None in float16, whose numbers have no hash."""
        is_rounded = self.dtype_policy.variable_dtype == "float16"
        is_float = self.quantization is None
        return None if is_float and is_rounded else self.base_hash()

    def _factors(self, verb: str) -> dict[str, np.ndarray]:
        """Return the factors by variable path, as they are when not merged."""
        self._require_adapters(verb)
        arrays = {v.path: np.asarray(v.value) for v in self._adapter_variables()}
        if self._unmerged is not None:
            for layer, kept in self._unmerged.by_path.items():
                arrays[f"{layer}/lora_kernel_b"] = kept.lora_kernel_b
        return arrays

    def _require_adapters(self, verb: str) -> None:
        if self.lora is None:
            raise ValueError(f"there are no adapters to {verb}; call enable_lora first")

    def _adapted(self) -> Iterator[Projection]:
        for block in self.blocks:
            for name, projection in block.projections().items():
                if name in self.lora.targets:
                    yield projection

    def _adapter_variables(self) -> list[keras.Variable]:
        return [v for v in self.weights if "/lora_kernel_" in v.path]


class _Kept:
    """What merging overwrote, by layer; a plain object, which Keras does not track."""

    def __init__(self, by_path: dict[str, Unmerged]) -> None:
        self.by_path = by_path


def _enable_block_lora(block: GemmaDecoderBlock, settings: LoraSettings) -> None:
    generator = block.add_seed_generator() if settings.dropout else None
    for name, projection in block.projections().items():
        if name not in settings.targets:
            continue
        projection.trainable = True
        projection.enable_lora(
            settings.rank,
            settings.alpha,
            factorisation=settings.factorisation,
            dropout=settings.dropout,
            seed_generator=generator,
        )
