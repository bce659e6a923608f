"""Where every array of the state tree lies, asked of one `ModelParallel`.

Turns Keras's layout of a variable into the sharding of its stacked array, and into
the three constraints that keep collectives small. There is no second table: what the
layout map says of a variable is what its stack gets, with the layers unsplit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import keras
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gemma.config import EMBEDDING, GemmaConfig
from gemma.layout import LARGE_BYTES, gemma_layout_map, most_devices, rule_of
from gemma.lora import LoraSettings
from gemma.stacked import Constraints, StackedVariable
from trainer.distribution.mesh import AXES
from trainer.model.working_memory import FEW_ROWS, LANES

BATCH, MODEL = AXES
BLOCK_ROWS = 8192
"""Rows of a large table that are gathered at a time.

A table whose parts are no multiple of `LANES` wide is stored transposed, and its rows
are looked up in one that is not. Gathered at once, both would stand in memory.
"""

Constraint = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Placement:
    """A mesh and the distribution that lays variables out on it."""

    mesh: Mesh
    distribution: keras.distribution.ModelParallel

    def spec(self, variable: StackedVariable) -> PartitionSpec:
        """Return how a stacked array is split; layers stay whole.

        Raises:
            ValueError: Not exactly one layout rule covers the variable.
        """
        member = variable.members[0]
        rule_of(member.path)  # refuses what Keras would leave whole in silence
        axes = self.distribution.get_variable_layout(member).axes
        return PartitionSpec(*([None] if variable.is_stacked else []), *axes)

    def sharding(self, variable: StackedVariable) -> NamedSharding:
        """Return the sharding of a stacked array."""
        return NamedSharding(self.mesh, self.spec(variable))

    def replicated(self) -> NamedSharding:
        """Return the sharding of what every device holds."""
        return NamedSharding(self.mesh, PartitionSpec())

    def constraints(self, tree: dict[str, StackedVariable]) -> Constraints:
        """Return the constraints on activations, embedding and gathered weights."""
        if self.mesh.size == 1:
            return Constraints()
        gathered = {path: self._gathered(v) for path, v in tree.items()}

        def constrain_weight(path: str, weight: jax.Array) -> jax.Array:
            return jax.lax.with_sharding_constraint(weight, gathered[path])

        return Constraints(
            activation=self._between,
            enter=_there_and_back(self._within, self._between),
            leave=_there_and_back(self._between, self._within),
            embedding=self._embedding(tree),
            looked_up=self._looked_up(tree),
            weight=constrain_weight,
        )

    def _between(self, x: jax.Array) -> jax.Array:
        """Split hidden states [batch, seq, hidden] between products.

        The sequence lies over `model`, so that what a block keeps for its backward
        pass is kept once, not on every device of the axis; one that does not divide
        is whole.
        """
        divides = x.shape[1] % self.mesh.shape[MODEL] == 0
        return self._constrain(PartitionSpec(BATCH, MODEL if divides else None))(x)

    def _within(self, x: jax.Array) -> jax.Array:
        """Make sequences whole for products, which split heads and widths instead."""
        return self._constrain(PartitionSpec(BATCH))(x)

    def _constrain(self, spec: PartitionSpec) -> Callable[[jax.Array], jax.Array]:
        sharding = NamedSharding(self.mesh, spec)
        return lambda x: jax.lax.with_sharding_constraint(x, sharding)

    def _embedding(self, tree: dict[str, StackedVariable]) -> Constraint:
        """Make an embedding whole over `batch`; `model` keeps splitting it."""
        whole = tree.get(EMBEDDING)
        if whole is None:  # integers and scales have only their rows in common
            rows = next(v for p, v in tree.items() if p.startswith("token_embedding/"))
            axis = MODEL if self.spec(rows)[0] == MODEL else None
            return self._constrain(PartitionSpec(axis))
        axes = self.spec(whole)
        kept = PartitionSpec(*(axis if axis == MODEL else None for axis in axes))
        at_once = _there_and_back(self._constrain(kept), self._constrain(axes))
        width = whole.shape[1] // self.mesh.shape[BATCH]
        rows_each = whole.shape[0] // (self.mesh.shape[MODEL] if kept[0] else 1)
        if axes[1] != BATCH or width % LANES == 0 or rows_each <= FEW_ROWS:
            return at_once
        return self._in_blocks(kept, at_once, rows_each)

    def _looked_up(self, tree: dict[str, StackedVariable]) -> Constraint:
        """Split what looked-up rows pull as the table is split.

        Added to a table that is whole, they would take as much memory as it, twice.
        """
        if self.tile_gradient(tree) is None:
            return self._within
        split = self._constrain(PartitionSpec(None, None, BATCH))
        return _there_and_back(self._within, split)

    def tile_gradient(self, tree: dict[str, StackedVariable]) -> NamedSharding | None:
        """Return how a sum over all positions for rows of the table is to lie.

        None where `batch` does not split the table's hidden dim.
        """
        whole = tree.get(EMBEDDING)
        if self.mesh.size == 1 or whole is None or self.spec(whole)[1] != BATCH:
            return None
        return NamedSharding(self.mesh, PartitionSpec(None, BATCH))

    def _in_blocks(
        self, kept: PartitionSpec, at_once: Constraint, rows: int
    ) -> Constraint:
        """Return what gathers a table some rows at a time, of `rows` on each device."""
        sizes = [n for n in range(LANES, BLOCK_ROWS + 1, LANES) if rows % n == 0]
        size = max(sizes, default=rows)
        split = self._constrain(PartitionSpec(None, kept[0], None, BATCH))
        gather = _there_and_back(
            self._constrain(PartitionSpec(kept[0])),
            self._constrain(PartitionSpec(kept[0], None, BATCH)),
        )

        def in_blocks(table: jax.Array) -> jax.Array:
            blocks = table.reshape(-1, rows // size, size, table.shape[1])
            gathered = jax.lax.map(gather, split(blocks.swapaxes(0, 1)))
            return at_once(gathered.swapaxes(0, 1).reshape(table.shape))

        return in_blocks

    def _gathered(self, variable: StackedVariable) -> NamedSharding:
        """Sharding of one layer's weight while it computes: whole over `batch`.

        An axis that had to leave the heads splits storage only: it is gathered too,
        since scores over a split head would be summed across devices.
        """
        path = variable.members[0].path
        wish = rule_of(path).wish
        spec = self.spec(variable)[1:] if variable.is_stacked else self.spec(variable)
        kept = [
            axis if axis == MODEL and dim < len(wish) and wish[dim] == "model" else None
            for dim, axis in enumerate(spec)
        ]
        return NamedSharding(self.mesh, PartitionSpec(*kept))


def _there_and_back(there: Constraint, back: Constraint) -> Constraint:
    """Return a constraint whose gradient is under another one.

    Left to itself, the gradient of sequences that were gathered for a product would be
    summed whole, and XLA would move weights to that of sequences that were split.
    """
    constrained = jax.custom_vjp(there)
    constrained.defvjp(lambda x: (there(x), None), lambda _, g: (back(g),))
    return constrained


def place(
    mesh: Mesh, config: GemmaConfig, lora: LoraSettings | None = None
) -> Placement:
    """Build the `ModelParallel` distribution of a model on a mesh."""
    device_mesh = keras.distribution.DeviceMesh(
        shape=mesh.devices.shape,
        axis_names=AXES,
        devices=[f"{d.platform}:{d.id}" for d in mesh.devices.flat],
    )
    layout_map = gemma_layout_map(device_mesh, MODEL, BATCH, config=config, lora=lora)
    distribution = keras.distribution.ModelParallel(
        layout_map=layout_map, batch_dim_name=BATCH
    )
    return Placement(mesh, distribution)


def check_all_large_are_split(
    tree: dict[str, StackedVariable], placement: Placement
) -> None:
    """Refuse a layout that leaves a large tensor on fewer devices than it could.

    Raises:
        ValueError: Such a tensor, by name.
    """
    sizes = dict(zip(AXES, placement.mesh.devices.shape, strict=True))
    for path, variable in tree.items():
        shape = variable.shape[1:] if variable.is_stacked else variable.shape
        bytes_each = variable.dtype.itemsize * math.prod(shape)
        split = math.prod(sizes[axis] for axis in placement.spec(variable) if axis)
        possible = most_devices(shape, sizes)
        if bytes_each >= LARGE_BYTES and split < possible:
            raise ValueError(
                f"{path} has {bytes_each} bytes a layer and lies on {split} of "
                f"{possible} devices that it could be split over on a mesh of "
                f"{placement.mesh.devices.shape}; its layout rule must split it"
            )
