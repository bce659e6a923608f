"""The quantized form of a backbone: made, loaded, merged with adapters.

Turns the kernels and the embedding of a backbone into integers and scales, and reads
the float weights again where somebody wants them back. It refuses to know the grids
(`gemma.quantized`) and what the layers compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import numpy as np

from gemma.abstract import is_abstract
from gemma.adapters import FACTOR_A, FACTOR_B, base_hash
from gemma.backbones.loading import build_empty
from gemma.layers.decoder_block import GemmaDecoderBlock
from gemma.layers.projection import merge_adapter
from gemma.layers.token_embedding import ReversibleEmbedding
from gemma.lora import LoraSettings
from gemma.presets import Preset, PresetFileError
from gemma.presets.source import Index, WeightSource
from gemma.quantized.grid import Quantization, check_quantization

Model = TypeVar("Model", bound="QuantizedMethods")


class QuantizedMethods:
    """What `Backbone` can do with quantized weights; mixed into it.

    Attributes:
        quantization: `int8` or `int4`; None while the weights are floats.
        float_base: The float weights that were quantized while they were loaded.
        float_hash: Of the float weights that were quantized, kept since they may be
            gone or change on disk; None where they had no values, or no hash.
    """

    blocks: list[GemmaDecoderBlock]
    token_embedding: ReversibleEmbedding
    lora: LoraSettings | None
    quantization: Quantization | None = None
    float_base: FloatBase | None = None
    float_hash: str | None = None

    def quantize(self, mode: Quantization, config: object = None) -> None:
        """Put integers and scales in place of every kernel and of the embedding.

        The model is frozen: adapters, added afterwards, are all that it trains. To
        quantize without the float model in memory, pass `quantize` to `from_preset`.

        Args:
            mode: `int8` or `int4`.
            config: Keras passes its own settings of the mode; the grids are ours.

        Raises:
            ValueError: Another mode, or the model is quantized or has adapters.
        """
        check_quantization(mode)
        if self.quantization is not None or self.lora is not None:
            have = "adapters" if self.quantization is None else self.quantization
            raise ValueError(
                f"only a float model without adapters can be quantized, received one "
                f"with {have}; quantize first, then call enable_lora"
            )
        if not is_abstract(self.weights):
            self.float_hash = self._known_base_hash()
        self.token_embedding.quantize_embeddings(mode)
        for block in self.blocks:
            for projection in block.projections().values():
                projection.quantize_kernel(mode)
        for layer in self._flatten_layers(include_self=False):
            layer.trainable = False
        self.quantization = mode
        self.train_function = self.test_function = self.predict_function = None

    def save_own_variables(self, store: object) -> None:
        """Save for Keras's own files, `.keras` and `.weights.h5`.

        Raises:
            ValueError: The model is quantized: those files have no place for it.
        """
        if self.quantization is not None:
            raise ValueError(
                f"Keras's own files hold no {self.quantization} weights; save the "
                "adapters by save_lora_weights, or the model with float weights by "
                "save_to_preset"
            )
        super().save_own_variables(store)

    def _float_array(self, path: str) -> np.ndarray:
        """Return a float weight of the preset, adapter merged in float32.

        Raises:
            ValueError: The float weights were in memory only and are gone.
        """
        factors = {v.path: v.value for v in self._adapter_variables()}
        return self._float_base().merged(path, factors, self.lora)

    def _float_base(self) -> FloatBase:
        if self.float_base is None:
            raise ValueError(
                "the float weights of this quantized model are gone; build it by "
                "from_preset(preset, quantize=...), which can read them again"
            )
        return self.float_base


class FloatBase:
    """The float weights of a preset, read again one tensor at a time.

    A plain object, which Keras does not track; its files are opened on first use.

    Args:
        preset: Has the weights.
        expected_hash: Of the weights that were quantized; None reads any others too.
    """

    def __init__(self, preset: Preset, *, expected_hash: str | None) -> None:
        self._preset, self._expected_hash = preset, expected_hash
        self._source: WeightSource | None = None

    def read(self, path: str, index: Index | None = None) -> np.ndarray:
        """Return a weight or a part of it, in the dtype of its file.

        Raises:
            PresetFileError: The preset has other weights now.
        """
        if self._source is None:
            self._source = self._open()
        return self._source.read(path, index)

    def merged(
        self,
        path: str,
        factors: Mapping[str, jax.Array | np.ndarray],
        lora: LoraSettings | None,
    ) -> np.ndarray:
        """Return a weight with its adapter merged in float32.

        Args:
            path: Of the weight.
            factors: Of all adapters, by path.
            lora: What the adapters are; None without any.
        """
        value, layer = self.read(path), path.removesuffix("/kernel")
        if lora is None or layer == path or f"{layer}/{FACTOR_A}" not in factors:
            return value
        a, b = factors[f"{layer}/{FACTOR_A}"], factors[f"{layer}/{FACTOR_B}"]
        return np.asarray(merge_adapter(value, a, b, scale=lora.scale))

    def _open(self) -> WeightSource:
        source = self._preset.weights()
        found = base_hash(self._preset.config, source.read)
        if self._expected_hash not in (None, found):
            source.close()
            raise PresetFileError(
                self._preset.name,
                expected=f"the weights that were quantized ({self._expected_hash})",
                received=f"others ({found})",
                fix="put them back, or build the model again from what is there now",
            )
        return source


def build_quantized(build: Callable[[], Model], mode: Quantization) -> Model:
    """Build a quantized backbone whose weights have no values yet.

    Args:
        build: Builds the float backbone; none of its weights is ever allocated.
        mode: `int8` or `int4`.

    Raises:
        ValueError: Another mode.
    """
    check_quantization(mode)

    def build_and_quantize() -> Model:
        backbone = build()
        backbone.quantize(mode)
        return backbone

    return build_empty(build_and_quantize)
