"""Memory that ran out, said with the plan's table instead of an allocator's dump.

Turns an allocator's error and the configuration into the bytes of each device by
purpose and what would need fewer. It refuses to look at the dump for more than its
first line.
"""

from __future__ import annotations

import jax

from gemma.attention import Target
from trainer.config.errors import SMALLER_STEP, MemoryPlanError, RunError
from trainer.config.schema import RunConfig
from trainer.distribution.mesh import usable_bytes
from trainer.tasks.planning.explain import explain_memory

ADVICE_SHOWN = 4


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of JAX or Python says that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    is_runtime = isinstance(error, jax.errors.JaxRuntimeError)
    return is_runtime and "RESOURCE_EXHAUSTED" in str(error)


def out_of_memory(error: BaseException, config: RunConfig) -> MemoryPlanError:
    """Return what the user reads: the allocator's line, the plan's table, advice."""
    told = str(error).splitlines() or ["no memory left"]
    device = jax.devices()[0]
    try:
        table, advice = explain_memory(
            config,
            num_devices=jax.device_count(),
            platform=device.platform,
            bytes_per_device=usable_bytes(jax.local_devices()),
            largest_fused_head_dim=Target.of_device(device).largest_fused_head_dim,
        )
    except (RunError, MemoryError):  # another task's preset, or nothing left at all
        table, advice = "", []
    return MemoryPlanError(
        key="trainer.microbatch_size",
        expected="a step that fits the memory of a device",
        received="\n".join([told[0][:200], *table.splitlines()]),
        fix="\n".join(advice[:ADVICE_SHOWN]) or SMALLER_STEP,
    )
