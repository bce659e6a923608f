"""`Backbone`: what every Gemma backbone can do with presets and meshes.

Turns a preset into a Keras model and back. It knows no architecture: subclasses name
the dimensions, `gemma.presets` knows the files, `gemma.layout` the meshes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from gemma.adapters import base_hash
from gemma.backbones.adapter_methods import AdapterMethods
from gemma.backbones.assembly import DType
from gemma.backbones.loading import build_empty, load_variables
from gemma.backbones.quantized_methods import (
    FloatBase,
    QuantizedMethods,
    build_quantized,
)
from gemma.config import GemmaConfig
from gemma.layers.decoder_block import GemmaDecoderBlock
from gemma.layers.token_embedding import ReversibleEmbedding
from gemma.layout import gemma_layout_map
from gemma.lora import LoraSettings
from gemma.presets import (
    BUILT_IN,
    BuiltIn,
    Preset,
    PresetFileError,
    check_whole,
    open_preset,
    write_hf,
    write_preset,
)
from gemma.quantized.grid import Quantization
from gemma.quantized.source import QuantizedWeights


class BuiltInPresets:
    """Class attribute that shows a class's built-in presets, a new dict each time."""

    def __get__(self, instance: object, owner: type[Backbone]) -> dict[str, BuiltIn]:
        """Return those that the class can build, by name; all for the base class."""
        return {
            name: preset
            for name, preset in BUILT_IN.items()
            if owner.builds(preset.config)
        }


class Backbone(AdapterMethods, QuantizedMethods, keras.Model):
    """A Gemma text model up to its hidden states, as a Functional Keras model.

    Attributes:
        gemma_config: Its dimensions.
        blocks: Its decoder blocks, first layer first.
        lora: Settings of its adapters; None without adapters.
        vocabulary: SentencePiece model of its preset, for `save_to_preset`.
    """

    presets = BuiltInPresets()
    config_class: type[GemmaConfig] | None = None
    """Of the models that a subclass builds; the base class builds all."""

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

    @classmethod
    def builds(cls, config: GemmaConfig) -> bool:
        """Return whether this class, and not another one, computes `config`."""
        return cls.config_class in (None, type(config))

    @property
    def token_embedding(self) -> ReversibleEmbedding:
        """The embedding layer; called with `reverse=True` it gives the logits."""
        return self._token_embedding

    @classmethod
    def from_preset(
        cls,
        preset: str,
        load_weights: bool = True,
        *,
        quantize: Quantization | None = None,
        **kwargs: object,
    ) -> Backbone:
        """Build a backbone from a preset.

        Args:
            preset: A built-in name, a `kaggle://` or `hf://` handle, or a directory
                in KerasHub's or Hugging Face's form.
            load_weights: False draws random weights and downloads none.
            quantize: `int8` or `int4` puts the kernels and the embedding in so many
                bits while they are read, so that the float model is never in memory.
            **kwargs: Arguments of the constructor that override the preset's, such
                as `dtype` and `trainable`.

        Raises:
            PresetFileError: The preset is unknown or damaged, of another class, or
                its weights do not fit the arguments.
            ValueError: `quantize` is another word, or there are no weights to load.
        """
        opened = open_preset(preset)
        if load_weights:
            opened = opened.downloaded()  # a refusal comes before any memory
        arguments = {"dtype": opened.dtype, **opened.config.to_mapping(), **kwargs}
        build = functools.partial(cls._class_for(opened), **arguments)
        if quantize is not None:
            if not load_weights:
                raise ValueError(
                    f"quantize={quantize!r} needs weights, received load_weights=False"
                )
            backbone = build_quantized(build, quantize)
        else:
            backbone = build_empty(build) if load_weights else build()
        if load_weights:
            backbone.load_arrays(opened)
            backbone.preset_name = opened.name
        if opened.form != "table":  # random weights are worth no download
            backbone.vocabulary = opened.vocabulary()
        return backbone

    @classmethod
    def _class_for(cls, preset: Preset) -> type[Backbone]:
        """Return the class that builds a preset: this one or a subclass of it."""
        from gemma.backbones.families import backbone_class  # subclasses of this

        built_by = backbone_class(preset.config)
        if issubclass(cls, built_by):
            return cls
        if not issubclass(built_by, cls):
            raise PresetFileError(
                preset.name,
                expected=f"a preset of {cls.__name__}",
                received=f"one of {built_by.__name__}",
                fix=f"call {built_by.__name__}.from_preset or Backbone.from_preset",
            )
        return built_by

    def load_arrays(self, preset: Preset) -> None:
        """Assign every weight from the preset's files, cast to the model's dtype.

        Raises:
            PresetFileError: The preset has other variables than this model.
        """
        check_whole(
            preset.name,
            preset.config.parameter_shapes(),
            self.gemma_config.parameter_shapes(),
            fix="leave out the arguments that change the preset's dimensions",
        )
        with preset.weights() as weights:
            if self.quantization is not None:
                self.float_hash = base_hash(self.gemma_config, weights.read)
                self.float_base = FloatBase(preset, expected_hash=self.float_hash)
                weights = QuantizedWeights(weights, self.quantization)
            load_variables(self._weight_variables(), weights)

    def save_to_preset(self, preset_dir: str, max_shard_size: float = 10) -> None:
        """Write KerasHub's preset directory; adapters are merged in float32.

        Tokenizer and task are part of it when the backbone came from a preset that
        has a vocabulary. Files of an older preset in the directory are replaced.

        Args:
            preset_dir: Local or remote directory.
            max_shard_size: In GB of 1024**3 bytes; larger weights are split.

        Raises:
            ValueError: The dtype of the weights is neither float32 nor bfloat16.
        """
        write_preset(
            preset_dir,
            config=self.gemma_config,
            dtype=self.dtype_policy.variable_dtype,
            arrays=self.merged_array,
            vocabulary=self.vocabulary,
            max_shard_bytes=int(max_shard_size * 1024**3),
        )

    def save_to_hf(self, directory: str, max_shard_size: float = 10) -> None:
        """Write a directory that transformers loads; adapters are merged in float32.

        The tokenizer is part of it when the backbone came from a preset that has a
        vocabulary. Files of an older preset in the directory are replaced.

        Args:
            directory: Local or remote directory.
            max_shard_size: In GB of 1024**3 bytes; larger weights are split.

        Raises:
            ValueError: The dtype of the weights is neither float32 nor bfloat16, or
                transformers has no architecture that computes this model.
        """
        write_hf(
            directory,
            config=self.gemma_config,
            dtype=self.dtype_policy.variable_dtype,
            arrays=self.merged_array,
            vocabulary=self.vocabulary,
            max_shard_bytes=int(max_shard_size * 1024**3),
        )

    def merged_array(self, path: str) -> np.ndarray:
        """Return the weight at `path` with its adapter merged in float32.

        For a quantized model this reads the float weight of its preset again.

        Raises:
            ValueError: The model was quantized in memory: its float weights are gone.
        """
        if self.quantization is not None:
            return self._float_array(path)
        block, _, _ = path.partition("/")
        if path.endswith("/kernel") and self.lora:
            projections = self.get_layer(block).projections()
            return np.asarray(projections[path.split("/")[-2]].kernel)
        variables = {v.path: v for v in self._weight_variables()}
        return np.asarray(variables[path].value)

    @classmethod
    def get_layout_map(
        cls,
        device_mesh: keras.distribution.DeviceMesh,
        model_parallel_dim_name: str = "model",
        data_parallel_dim_name: str = "batch",
        *,
        config: GemmaConfig | None = None,
    ) -> keras.distribution.LayoutMap:
        """Return the layout of every variable on `device_mesh`.

        Args:
            device_mesh: Mesh to lay out on.
            model_parallel_dim_name: Axis that splits heads, vocabulary and
                feed-forward.
            data_parallel_dim_name: Axis that splits the batch, and the other large
                dim of every weight.
            config: Dimensions to fit the splits to. Without it the map learns them
                from the backbone that is built under it.

        Raises:
            ValueError: `device_mesh` is no mesh, or lacks one of the two axes.
        """
        return gemma_layout_map(
            device_mesh, model_parallel_dim_name, data_parallel_dim_name, config=config
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            **self.gemma_config.to_mapping(),
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
