"""The collectives that a step must have, where no compiler lists them.

Turns a mesh and the dimensions of a model into bytes: what the splits of weights and
batch force. A compiler merges some of it and adds its own; it is not asked here.
"""

from __future__ import annotations

import math

from trainer.model.memory import MemoryPlan
from trainer.tasks.planning.collectives import Collective

FORWARD_SUMS = 2  # a layer's attention output and feed-forward, over `model`


def estimated_collectives(plan: MemoryPlan, shape: tuple[int, int]) -> list[Collective]:
    """Return collectives by kind, most bytes first, on each device in a step.

    Over `model`, a layer's two products are summed in every pass: forward, backward
    and, where it is computed again, once more. Where the sequence is split between
    products, each device gets its part of the sum and gathers the whole again. Over
    `batch`, each layer's weights are gathered forward and backward, where what is
    computed again shares them; the table is gathered once, and the gradients of what
    is trained are summed.
    """
    batch, model = shape
    found = []
    if model > 1:
        found += _sums(plan, shape)
    if batch > 1:
        found += [_gathers(plan, shape), _gradients(plan, shape)]
    return sorted(found, key=lambda c: -c.bytes)


def _passes(plan: MemoryPlan) -> int:
    again = plan.remat != "none"
    return (3 if again else 2) * plan.microbatches


def _sums(plan: MemoryPlan, shape: tuple[int, int]) -> list[Collective]:
    batch, model = shape
    count = _passes(plan) * FORWARD_SUMS * plan.config.num_layers
    tokens = plan.microbatch_size * plan.sequence_length // batch
    item = 4 if plan.dtype == "float32" else 2
    whole = count * tokens * plan.config.hidden_dim * item
    if plan.sequence_length % model:
        kinds = {"all-reduce": whole}
    else:
        kinds = {"all-gather": whole, "reduce-scatter": whole // model}
    return [
        Collective(kind=kind, devices=model, count=count, bytes=size)
        for kind, size in kinds.items()
    ]


def _gathers(plan: MemoryPlan, shape: tuple[int, int]) -> Collective:
    split = [
        row
        for row in plan.layout(shape).rows
        if "batch" in row.spec and "/lora_kernel_" not in row.path
    ]
    times = [1 if "token_embedding" in row.path else 2 for row in split]
    whole = [row.bytes_per_device * shape[0] for row in split]
    return Collective(
        kind="all-gather",
        devices=shape[0],
        count=plan.microbatches * sum(times),
        bytes=plan.microbatches * sum(map(math.prod, zip(times, whole, strict=True))),
    )


def _gradients(plan: MemoryPlan, shape: tuple[int, int]) -> Collective:
    rows = plan.layout(shape).rows
    trained = [r for r in rows if plan.trains(r.path)]
    each = sum(math.prod(r.shape) * 4 // _over_model(r.spec, shape[1]) for r in trained)
    return Collective(
        kind="all-reduce",
        devices=shape[0],
        count=len(trained) * plan.microbatches,
        bytes=each * plan.microbatches,
    )


def _over_model(spec: tuple[str | None, ...], model: int) -> int:
    return model if "model" in spec else 1
