"""The exact bytes of an optimizer's slots, on a mesh that need not be here.

Turns the table of a model's layout into the stacked arrays that are trained and asks
the run's own optimizer for its slots and their shardings. It refuses to know which
optimizer has which slots.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from gemma.abstract import build_abstract
from gemma.config import GemmaConfig
from gemma.layout import LayoutTable, Row
from gemma.stacked.tree import stacks
from trainer.config.schema import OptimizerConfig
from trainer.distribution.mesh import AXES
from trainer.training.optimizer import StackedOptimizer
from trainer.training.schedule import Schedule


@dataclasses.dataclass(frozen=True)
class TrainedArray:
    """A stacked array as the optimizer sees it, and how it is split."""

    shape: tuple[int, ...]
    dtype: np.dtype
    is_stacked: bool
    spec: PartitionSpec


def slot_bytes(
    optimizer: OptimizerConfig,
    trained: Mapping[str, TrainedArray],
    shape: tuple[int, int],
) -> int:
    """Return the bytes of all slots on each device.

    Args:
        optimizer: Which optimizer, and whether averages are kept.
        trained: The arrays that it trains, by path.
        shape: Of the mesh, batch x model.
    """
    mesh = AbstractMesh(shape, AXES)
    schedule = Schedule(
        "constant", peak=1.0, warmup_steps=0, num_train_steps=1, final_fraction=0.0
    )
    built = StackedOptimizer(
        optimizer,
        schedule,
        trained,
        shardings={p: NamedSharding(mesh, a.spec) for p, a in trained.items()},
        replicated=NamedSharding(mesh, PartitionSpec()),
        build_abstract=build_abstract,
    )
    return sum(map(_bytes_each, built.shapes().values()))


def trained_arrays(
    table: LayoutTable, config: GemmaConfig, *, trains: Callable[[str], bool]
) -> dict[str, TrainedArray]:
    """Return the stacked arrays that are trained, in the order of the table.

    Args:
        table: Layout of the model on the mesh.
        config: Dimensions, which say which layers are stacked together.
        trains: Whether the variable of a path is trained.
    """
    stack_of = {i: stack.name for stack in stacks(config) for i in stack.layers}
    kinds: dict[str, list[Row]] = {}
    for row in table.rows:
        if not trains(row.path):
            continue
        block, _, rest = row.path.partition("/")
        layer = block.removeprefix("decoder_block_")
        path = f"{stack_of[int(layer)]}/{rest}" if layer.isdecimal() else row.path
        kinds.setdefault(path, []).append(row)
    return {path: _stacked(path, rows) for path, rows in kinds.items()}


def _stacked(path: str, rows: list[Row]) -> TrainedArray:
    first, is_stacked = rows[0], path.startswith("decoder_blocks")
    return TrainedArray(
        shape=(len(rows), *first.shape) if is_stacked else first.shape,
        dtype=np.dtype(first.dtype),
        is_stacked=is_stacked,
        spec=PartitionSpec(*([None] if is_stacked else []), *first.spec),
    )


def _bytes_each(slot: jax.ShapeDtypeStruct) -> int:
    return math.prod(slot.sharding.shard_shape(slot.shape)) * slot.dtype.itemsize
