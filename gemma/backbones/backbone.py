"""`Backbone`: what every Gemma backbone can do with presets and adapters.

Turns a preset into a Keras model and back. It knows no architecture: subclasses build
the layers, `gemma.presets` and `gemma.adapters` know the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from gemma.adapters import read_lora, write_lora
from gemma.config import GemmaConfig
from gemma.layers.decoder_block import GemmaDecoderBlock
from gemma.layers.token_embedding import ReversibleEmbedding
from gemma.lora import Factorisation, LoraSettings, lora_settings
from gemma.presets import (
    BUILT_IN,
    BuiltIn,
    Preset,
    check_whole,
    open_preset,
    write_preset,
)

DType = str | keras.DTypePolicy | None
"""Name of a dtype or policy, or a policy; None is Keras's global one."""


class BuiltInPresets:
    """Class attribute that shows the built-in presets by name, a new dict each time."""

    def __get__(self, instance: object, owner: type) -> dict[str, BuiltIn]:
        """Return the table by name."""
        return dict(BUILT_IN)


class Backbone(keras.Model):
    """A Gemma text model up to its hidden states, as a Functional Keras model.

    Attributes:
        gemma_config: Its dimensions.
        blocks: Its decoder blocks, first layer first.
        lora: Settings of its adapters; None without adapters.
        vocabulary: SentencePiece model of its preset, for `save_to_preset`.
    """

    presets = BuiltInPresets()

    def __init__(
        self,
        *,
        inputs: dict[str, keras.KerasTensor],
        outputs: keras.KerasTensor,
        config: GemmaConfig,
        embedding: ReversibleEmbedding,
        blocks: Sequence[GemmaDecoderBlock],
        dtype: DType = None,
        **kwargs: object,
    ) -> None:
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.dtype_policy = keras.dtype_policies.get(
            dtype or keras.config.dtype_policy()
        )
        self.gemma_config = config
        self._token_embedding = embedding
        self.blocks = list(blocks)
        self.lora: LoraSettings | None = None
        self.vocabulary: bytes | None = None

    @property
    def token_embedding(self) -> ReversibleEmbedding:
        """The embedding layer; called with `reverse=True` it gives the logits."""
        return self._token_embedding

    @classmethod
    def from_preset(
        cls, preset: str, load_weights: bool = True, **kwargs: object
    ) -> Backbone:
        """Build a backbone from a preset.

        Args:
            preset: A built-in name, a `kaggle://` or `hf://` handle, or a directory
                in KerasHub's or Hugging Face's form.
            load_weights: False draws random weights.
            **kwargs: Arguments of the constructor that override the preset's, such
                as `dtype` and `trainable`.

        Raises:
            PresetFileError: The preset is unknown or damaged, or its weights do not
                fit the arguments.
        """
        opened = open_preset(preset)
        arguments = {"dtype": opened.dtype, **opened.config.to_mapping(), **kwargs}
        backbone = _backbone_class(cls)(**arguments)
        if load_weights:
            backbone.load_arrays(opened)
        backbone.vocabulary = opened.vocabulary()
        return backbone

    def load_arrays(self, preset: Preset) -> None:
        """Assign every weight from the preset's files, cast to the model's dtype.

        Raises:
            PresetFileError: The preset has other variables than this model.
        """
        check_whole(
            preset.name,
            preset.config.parameter_shapes(),
            self.gemma_config.parameter_shapes(),
        )
        with preset.weights() as weights:
            for variable in self._weight_variables():
                variable.assign(weights.read(variable.path))

    def save_to_preset(self, preset_dir: str) -> None:
        """Write KerasHub's preset directory; adapters are merged in float32.

        Tokenizer and task are part of it when the backbone came from a preset that
        has a vocabulary. Files of an older preset in the directory are replaced.

        Raises:
            ValueError: The dtype of the weights is neither float32 nor bfloat16.
        """
        write_preset(
            preset_dir,
            config=self.gemma_config,
            dtype=self.dtype_policy.variable_dtype,
            arrays=self.merged_array,
            vocabulary=self.vocabulary,
        )

    def merged_array(self, path: str) -> np.ndarray:
        """Return the weight at `path` with its adapter merged in float32."""
        block, _, _ = path.partition("/")
        if path.endswith("/kernel") and self.lora:
            projections = self.get_layer(block).projections()
            return np.asarray(projections[path.split("/")[-2]].kernel)
        variables = {v.path: v for v in self._weight_variables()}
        return np.asarray(variables[path].value)

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

    def get_config(self) -> dict[str, Any]:
        """Return name, trainable and dtype; subclasses add their dimensions."""
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Backbone:
        """Build from `get_config`'s result."""
        config = dict(config)
        if isinstance(config.get("dtype"), dict):
            config["dtype"] = keras.dtype_policies.deserialize(config["dtype"])
        return cls(**config)

    def _weight_variables(self) -> list[keras.Variable]:
        return [v for v in self.weights if "/lora_kernel_" not in v.path]

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


def _backbone_class(cls: type[Backbone]) -> type[Backbone]:
    if cls is not Backbone:
        return cls
    from gemma.backbones.gemma_backbone import GemmaBackbone  # a subclass of this

    return GemmaBackbone
