"""What is planned, for which chips: the keys of `plan.*`.

Turns names into typed values, like `trainer.config.schema`, of which it is a part. It
refuses to know which topologies there are (`trainer.config.topology`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class PlanConfig:
    """Settings of `task=plan`."""

    topology: str | None = None
    """Chips to plan for: a TPU slice such as `v5e:2x4`, compiled with the extra `plan`;
    `cpu:8`, compiled; `h100:8`, estimated. null: this machine's devices."""
    format: str = "text"
    """`text`, or `json`: one object on standard output and nothing else."""
    confirm: bool = False
    """Compile the largest microbatch and sequence too, which an estimate finds."""
