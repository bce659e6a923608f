"""An estimate of the bytes that each device needs, from dimensions alone.

Turns a model's dimensions, the settings of a step and the shape of a mesh into bytes by
what they are for, for choosing a mesh and for planning before anything is built.
Weights, adapters and slots are exact; what a step needs beside them is estimated in
`trainer.model.working_memory`. It refuses to know chips and compilers.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

from gemma.attention.blocked import LARGEST_BLOCK
from gemma.config import EMBEDDING, GemmaConfig
from gemma.layout import LayoutTable, table
from gemma.lora import LoraSettings
from gemma.quantized.grid import Quantization
from trainer.model.working_memory import Work, activation_bytes, loss_bytes

SlotBytes = Callable[[LayoutTable], int]
"""Bytes of an optimizer's slots on each device, given where the weights lie."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceBytes:
    """Bytes on each device, by what they are for.

    Attributes:
        weights: Of the base, whole or quantized, as they lie between steps.
        adapters: Their factors.
        optimizer: Slots and averages.
        gradients: Of what is trained; twice where microbatches are added up.
        activations: What the backward pass keeps and works on beyond the loss's room:
            weights that are gathered or laid out anew for it too, and the program.
        loss: Hidden states with their gradient, and a chunk's tile of logits.
    """

    weights: int
    adapters: int
    optimizer: int
    gradients: int
    activations: int
    loss: int

    @property
    def state(self) -> int:
        """What lies there between steps."""
        return self.weights + self.adapters + self.optimizer

    @property
    def total(self) -> int:
        """All of it."""
        return self.state + self.gradients + self.activations + self.loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What decides the bytes of a training step beside the mesh.

    Attributes:
        config: Dimensions of the model.
        dtype: Of frozen weights and computation.
        lora: Adapters; None where all weights are trained, or none of them.
        train_embedding: The embedding is trained beside adapters, kept in float32.
        quantize: Bits of the base; None for floats.
        sequence_length: Tokens of a sequence.
        microbatch_size: Sequences per forward, on all devices.
        microbatches: Forwards per step.
        remat: `trainer.remat`.
        attention: Path that computes attention.
        attention_block: Places of a block at most, where the path is `blocked`.
        loss_chunk_tokens: `trainer.loss_chunk_tokens`.
        slot_bytes: Asks the optimizer.
        layer_program_bytes: Of the program of a layer of a scan step, where programs
            lie in the device's memory.
        slices: Of TPUs, over which `batch` runs.
        scans_stretches: Those of alike layers are scans where remat allows it.
    """

    config: GemmaConfig
    dtype: str
    lora: LoraSettings | None
    train_embedding: bool = False
    quantize: Quantization | None = None
    sequence_length: int
    microbatch_size: int
    microbatches: int = 1
    remat: str
    attention: str
    loss_chunk_tokens: int
    slot_bytes: SlotBytes
    layer_program_bytes: int = 0
    attention_block: int = LARGEST_BLOCK
    slices: int = 1
    scans_stretches: bool = False

    @property
    def is_full(self) -> bool:
        """Whether the weights themselves are trained, kept in float32."""
        return self.lora is None and self.quantize is None

    def trains(self, path: str) -> bool:
        """Return whether the variable of a path is trained."""
        also = self.train_embedding and path == EMBEDDING
        return self.is_full or "/lora_kernel_" in path or also

    def layout(self, shape: tuple[int, int]) -> LayoutTable:
        """Return where every variable lies on a mesh of `batch` x `model`."""
        return _layout(
            self.config,
            shape,
            "float32" if self.is_full else self.dtype,
            self.lora,
            self.quantize,
            EMBEDDING if self.train_embedding else None,
        )

    def bytes_per_device(self, shape: tuple[int, int]) -> int:
        """Return the estimate for a mesh of `batch` x `model`."""
        return self.estimate(shape).total

    def estimate(self, shape: tuple[int, int]) -> DeviceBytes:
        """Return the bytes on each device of a mesh, by what they are for."""
        layout = self.layout(shape)
        rows = layout.rows
        adapters = sum(r.bytes_per_device for r in rows if "/lora_kernel_" in r.path)
        weights = layout.bytes_per_device - adapters
        trained = sum(r.bytes_per_device for r in rows if self.trains(r.path))
        work = self._work(layout)
        # one sum over microbatches beside the gradient that is added to it
        copies = 2 if self.microbatches > 1 else 1
        program = (1 + work.layers_together) * self.layer_program_bytes
        return DeviceBytes(
            weights=weights,
            adapters=adapters,
            optimizer=self.slot_bytes(layout),
            gradients=trained * copies,
            activations=activation_bytes(work) + program,
            loss=loss_bytes(work),
        )

    def _work(self, layout: LayoutTable) -> Work:
        return Work(
            config=self.config,
            layout=layout,
            item_bytes=4 if self.dtype == "float32" else 2,
            is_full=self.is_full,
            trains_table=self.trains(EMBEDDING),
            is_quantized=self.quantize is not None,
            sequence_length=self.sequence_length,
            microbatch_size=self.microbatch_size,
            remat=self.remat,
            attention=self.attention,
            attention_block=self.attention_block,
            loss_chunk_tokens=self.loss_chunk_tokens,
            slices=self.slices,
            scans_stretches=self.scans_stretches,
        )


@functools.lru_cache(maxsize=64)
def _layout(
    config: GemmaConfig,
    shape: tuple[int, int],
    dtype: str,
    lora: LoraSettings | None,
    quantize: Quantization | None,
    in_float32: str | None,
) -> LayoutTable:
    """Return a layout in which the variable of one path is kept in float32."""
    found = table(config, shape, dtype=dtype, lora=lora, quantize=quantize)
    rows = (
        dataclasses.replace(row, dtype="float32", bytes=4 * math.prod(row.shape))
        if row.path == in_float32
        else row
        for row in found.rows
    )
    return dataclasses.replace(found, rows=tuple(rows))
