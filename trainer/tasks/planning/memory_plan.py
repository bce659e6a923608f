"""The estimate of a configuration: what `mesh=auto` and `task=plan` ask.

Turns a `RunConfig` and the facts of its preset into a `MemoryPlan`, which knows no
configuration, with the optimizer's own slots and the path that attention takes.
"""

from __future__ import annotations

from gemma.attention import Target, largest_block
from gemma.config import GemmaConfig
from gemma.layout import LayoutTable
from gemma.lora import LoraSettings
from gemma.stacked import should_scan_stretches
from trainer.config.schema import RunConfig
from trainer.model.attention import attention_path
from trainer.model.memory import MemoryPlan
from trainer.model.remat import LEAST
from trainer.tasks.planning.slots import slot_bytes, trained_arrays

_LAYER_PROGRAM_BYTES = {
    "tpu": 20_000_000  # libtpu 0.0.42: 29 MB for one layer, 50 to 72 for two
}


def memory_plan(
    config: RunConfig,
    dimensions: GemmaConfig,
    lora: LoraSettings | None,
    *,
    platform: str,
    largest_fused_head_dim: int = 128,
) -> MemoryPlan:
    """Return the estimate of a configuration whose dtype is filled in.

    It is the least that `trainer.remat=auto` can need: the mesh is chosen first.

    Args:
        config: What would be trained.
        dimensions: Of its preset.
        lora: Its adapters; None where all weights are trained.
        platform: `cpu`, `gpu` or `tpu`, whose kernels differ.
        largest_fused_head_dim: Of cuDNN's attention there.

    Raises:
        ConfigError: `trainer.attention` cannot run there.
    """
    target = Target(platform, largest_fused_head_dim)
    trainer, preset = config.trainer, config.preset
    quantize = None if preset.quantize == "none" else preset.quantize
    known: dict[tuple[int, int], int] = {}  # a search asks for one mesh many times

    def slots(layout: LayoutTable) -> int:
        shape = layout.mesh_shape
        if shape not in known:
            trained = trained_arrays(layout, dimensions, trains=plan.trains)
            known[shape] = slot_bytes(config.optimizer, trained, shape)
        return known[shape]

    plan = MemoryPlan(
        config=dimensions,
        dtype=preset.dtype,
        lora=lora,
        train_embedding=config.lora.train_embedding and lora is not None,
        quantize=quantize,
        sequence_length=config.data.sequence_length,
        microbatch_size=trainer.forward_size,
        microbatches=trainer.global_batch_size // trainer.forward_size,
        remat=LEAST if trainer.remat == "auto" else trainer.remat,
        attention=_attention(config, dimensions, target),
        attention_block=largest_block(target.platform),
        loss_chunk_tokens=trainer.loss_chunk_tokens,
        slot_bytes=slots,
        layer_program_bytes=_LAYER_PROGRAM_BYTES.get(platform, 0),
        slices=max(config.mesh.slices or 1, 1),
        scans_stretches=should_scan_stretches(
            platform, is_frozen=lora is not None or quantize is not None
        ),
    )
    return plan


def _attention(config: RunConfig, dimensions: GemmaConfig, target: Target) -> str:
    """Return the path that attention will take there."""
    return attention_path(
        config.trainer.attention,
        target,
        model=dimensions,
        dtype=config.preset.dtype,
        is_packed=config.data.pack,
        length=config.data.sequence_length,
    )
