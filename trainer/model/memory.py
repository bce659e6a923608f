"""An estimate of the bytes that a device needs, from dimensions alone.

Turns a model's dimensions, the training settings and a mesh shape into bytes, for
choosing a mesh before anything is built. Weights and optimizer are exact up to what a
mesh cannot divide; activations are an upper estimate.
"""

from __future__ import annotations

import dataclasses
import math

from gemma.adapters.factors import factor_shapes
from gemma.config import GemmaConfig
from gemma.layout.listing import table
from gemma.lora import LoraSettings
from gemma.quantized.grid import Quantization

FLOAT32_BYTES = 4
ADAMW_COPIES = 4  # weight, gradient, two moments
BLOCK_WORKSPACE = 6  # widest arrays of a block that live at once in its backward pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What decides the bytes of a training step beside the mesh."""

    config: GemmaConfig
    dtype_bytes: int
    lora: LoraSettings | None
    quantize: Quantization | None = None
    sequence_length: int
    microbatch_size: int
    remat: str
    loss_chunk_tokens: int

    def bytes_per_device(self, shape: tuple[int, int]) -> int:
        """Return the estimate for a mesh of `batch` x `model`."""
        batch, model = shape
        state = self._state_bytes() // (batch * model)
        return state + self._activation_bytes(batch, model)

    def _state_bytes(self) -> int:
        count = self.config.parameter_count
        if self.quantize is not None:
            frozen = table(
                self.config, (1, 1), dtype="float32", quantize=self.quantize
            ).bytes
        elif self.lora is None:
            return count * FLOAT32_BYTES * ADAMW_COPIES
        else:
            frozen = count * self.dtype_bytes
        adapters = adapter_count(self.config, self.lora) if self.lora else 0
        return frozen + adapters * FLOAT32_BYTES * ADAMW_COPIES

    def _activation_bytes(self, batch: int, model: int) -> int:
        config, length = self.config, self.sequence_length
        tokens = self.microbatch_size * length // batch
        widest = max(config.ffw_dim, config.num_query_heads * config.head_dim) // model
        heads = max(config.num_query_heads // model, 1)
        scores = tokens * length * heads * FLOAT32_BYTES
        block = BLOCK_WORKSPACE * (tokens * widest * self.dtype_bytes + scores)
        kept = tokens * config.hidden_dim * self.dtype_bytes * config.num_layers
        if self.remat == "none":
            kept += block * config.num_layers
        logits = self.loss_chunk_tokens // batch * config.vocabulary_size // model
        return kept + block + 2 * logits * FLOAT32_BYTES


def adapter_count(config: GemmaConfig, lora: LoraSettings) -> int:
    """Return the parameters of all adapters."""
    shapes = factor_shapes(
        config, rank=lora.rank, targets=lora.targets, factorisation=lora.factorisation
    )
    return sum(math.prod(shape) for shape in shapes.values())
