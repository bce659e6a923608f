"""The estimate of a configuration: what `mesh=auto` and `task=plan` ask.

Turns a `RunConfig` and the facts of its preset into a `MemoryPlan`, which knows no
configuration, with the optimizer's own slots and the path that attention takes.
"""

from __future__ import annotations

from gemma.config import GemmaConfig
from gemma.layout import LayoutTable
from gemma.lora import LoraSettings
from trainer.config.schema import RunConfig
from trainer.model.memory import MemoryPlan
from trainer.tasks.planning.slots import slot_bytes, trained_arrays


def memory_plan(
    config: RunConfig,
    dimensions: GemmaConfig,
    lora: LoraSettings | None,
    *,
    platform: str,
) -> MemoryPlan:
    """Return the estimate of a configuration whose dtype is filled in.

    Args:
        config: What would be trained.
        dimensions: Of its preset.
        lora: Its adapters; None where all weights are trained.
        platform: `cpu`, `gpu` or `tpu`, whose kernels differ.
    """
    trainer, preset = config.trainer, config.preset
    quantize = None if preset.quantize == "none" else preset.quantize
    only_adapters = lora is not None or quantize is not None

    def slots(layout: LayoutTable) -> int:
        trained = trained_arrays(layout, dimensions, only_adapters=only_adapters)
        return slot_bytes(config.optimizer, trained, layout.mesh_shape)

    return MemoryPlan(
        config=dimensions,
        dtype=preset.dtype,
        lora=lora,
        quantize=quantize,
        sequence_length=config.data.sequence_length,
        microbatch_size=trainer.forward_size,
        microbatches=trainer.global_batch_size // trainer.forward_size,
        remat=trainer.remat,
        attention=_attention(config, dimensions, platform),
        loss_chunk_tokens=trainer.loss_chunk_tokens,
        slot_bytes=slots,
    )


def _attention(config: RunConfig, dimensions: GemmaConfig, platform: str) -> str:
    """Return the path that attention will take on a platform."""
    return "splash" if platform == "tpu" else "blocked"
