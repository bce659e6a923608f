"""The estimate of a run that is there, for when its memory ran out.

Turns a configuration and the devices it runs on into the plan's table and advice as
text. Nothing is compiled or allocated: there may be no memory left for it.
"""

from __future__ import annotations

from trainer.config.schema import RunConfig
from trainer.tasks.planning.chips import PlannedChips
from trainer.tasks.planning.preparing import prepare, search_of
from trainer.tasks.planning.telling import by_purpose, size, told


def explain_memory(
    config: RunConfig,
    *,
    num_devices: int,
    platform: str,
    bytes_per_device: int | None,
    largest_fused_head_dim: int = 128,
) -> tuple[str, list[str]]:
    """Return a table of the estimated bytes of each device, and what to change.

    Args:
        config: Of the run.
        num_devices: That it runs on.
        platform: As JAX names it.
        bytes_per_device: Memory of a device; None where nobody knows.
        largest_fused_head_dim: Of cuDNN's attention there.
    """
    target = PlannedChips(
        name=f"{platform}:{num_devices}",
        platform=platform,
        num_devices=num_devices,
        bytes_per_device=bytes_per_device,
        devices=None,
        largest_fused_head_dim=largest_fused_head_dim,
    )
    planned = prepare(config, target)
    needed = planned.memory.estimate(planned.shape)
    rows = by_purpose(needed, bytes_per_device) | {"in all": size(needed.total)}
    width = max(map(len, rows))
    table = "\n".join(f"{name:>{width}}  {text}" for name, text in rows.items())
    # it did not fit, whatever the estimate says: what needs less is advised
    search = search_of(planned, limit=bytes_per_device or needed.total)
    return table, [f"{c.words}: {told(c)}" for c in search.changes()]
