"""The adapter methods of a backbone: made, saved, loaded.

Turns LoRA settings into trainable factors beside frozen kernels, and factors into
files and back. It refuses to know how files are laid out (`gemma.adapters`) and how a
factor computes (`gemma.layers.projection`).
"""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np

from gemma.adapters import read_lora, write_lora
from gemma.config import GemmaConfig
from gemma.layers.decoder_block import GemmaDecoderBlock
from gemma.lora import Factorisation, LoraSettings, lora_settings


class AdapterMethods:
    """What `Backbone` can do with adapters; mixed into it.

    Attributes:
        gemma_config: Its dimensions.
        blocks: Its decoder blocks, first layer first.
        lora: Settings of its adapters; None without adapters.
    """

    gemma_config: GemmaConfig
    blocks: list[GemmaDecoderBlock]
    lora: LoraSettings | None

    def enable_lora(
        self,
        rank: int,
        target_layer_names: Iterable[str] | None = None,
        *,
        lora_alpha: float | None = None,
        factorisation: Factorisation = "per_head",
        dropout: float = 0.0,
    ) -> None:
        """Freeze all weights and add trainable adapters of the given rank.

        Args:
            rank: Inner dimension.
            target_layer_names: fnmatch patterns of projections
                (`gemma.lora.PROJECTIONS`); query and value by default.
            lora_alpha: Adapters are scaled by lora_alpha / rank; `rank` by default.
            factorisation: `per_head` as Keras, or `shared` as PEFT.
            dropout: On the adapters' inputs, while training.

        Raises:
            ValueError: Adapters exist already, or a setting is impossible.
        """
        if self.lora is not None:
            raise ValueError(
                f"the backbone has adapters of rank {self.lora.rank} already; "
                "build a new one for others"
            )
        settings = lora_settings(
            rank,
            alpha=lora_alpha,
            targets=target_layer_names,
            factorisation=factorisation,
            dropout=dropout,
        )
        for layer in self._flatten_layers(include_self=False):
            layer.trainable = False
        for block in self.blocks:
            _enable_block_lora(block, settings)
        self.lora = settings

    def save_lora_weights(self, filepath: str) -> None:
        """Write the adapters as KerasHub's `.lora.h5`, with `adapter.json` beside it.

        Raises:
            ValueError: There are no adapters, or the name ends otherwise.
        """
        if self.lora is None:
            raise ValueError("there are no adapters to save; call enable_lora first")
        arrays = {v.path: np.asarray(v.value) for v in self._adapter_variables()}
        write_lora(
            filepath,
            arrays,
            config=self.gemma_config,
            rank=self.lora.rank,
            alpha=self.lora.alpha,
            targets=self.lora.targets,
            factorisation=self.lora.factorisation,
        )

    def load_lora_weights(self, filepath: str) -> None:
        """Read adapters from a `.lora.h5`; add them first where there are none.

        Raises:
            PresetFileError: The file is damaged or belongs to another model.
            ValueError: Rank, targets or factorisation differ from the model's.
        """
        adapter = read_lora(filepath, self.gemma_config)
        if self.lora is None:
            self.enable_lora(
                adapter.rank,
                adapter.targets,
                lora_alpha=adapter.alpha,
                factorisation=adapter.factorisation,
            )
        elif self.lora.rank != adapter.rank:
            raise ValueError(
                f"ranks must match: the model's adapters have rank {self.lora.rank}, "
                f"{filepath} has rank {adapter.rank}"
            )
        ours = (self.lora.targets, self.lora.factorisation)
        if ours != (adapter.targets, adapter.factorisation):
            raise ValueError(
                f"targets and factorisation must match: the model adapts "
                f"{', '.join(ours[0])} ({ours[1]}), {filepath} adapts "
                f"{', '.join(adapter.targets)} ({adapter.factorisation})"
            )
        variables = {v.path: v for v in self._adapter_variables()}
        # the file's own scale alpha / rank may differ from the model's
        rescale = adapter.alpha / adapter.rank / self.lora.scale
        for path, variable in variables.items():
            factor = rescale if path.endswith("lora_kernel_b") else 1.0
            variable.assign(adapter.arrays[path] * factor)

    def _adapter_variables(self) -> list[keras.Variable]:
        return [v for v in self.weights if "/lora_kernel_" in v.path]


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
