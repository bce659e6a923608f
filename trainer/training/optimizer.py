"""Keras's optimizers on the stacked state tree.

Turns `optimizer.*` into pure functions from gradients and slots to weights and slots,
slots sharded as their weights. The update of a stack equals the updates that its
layers would get as variables of their own, whatever the optimizer. It refuses to know
which class of Keras that is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from trainer.config.schema import OptimizerConfig
from trainer.training.keras_optimizers import LAYERWISE, keras_optimizer
from trainer.training.schedule import Schedule
from trainer.training.update_group import (
    ITERATION,
    Arrays,
    BuildAbstract,
    Slot,
    Trained,
    UpdateGroup,
)

AVERAGE = "average"


class StackedOptimizer:
    """One optimizer over the trained arrays.

    Slots are a flat dict: `iteration`, and for every weight `<slot>/<path>`. Those
    `beside` them belong to no weight, are the same on all devices, and are changed by
    whoever asked for them: no update does.
    """

    def __init__(
        self,
        config: OptimizerConfig,
        schedule: Schedule,
        trained: Mapping[str, Trained],
        *,
        shardings: Mapping[str, NamedSharding],
        replicated: NamedSharding,
        build_abstract: BuildAbstract,
        beside: Mapping[str, jax.ShapeDtypeStruct] | None = None,
    ) -> None:
        self._name, self._paths = config.name, list(trained)
        self._schedule = schedule
        self._groups = [
            UpdateGroup(
                keras_optimizer(config, schedule),
                arrays,
                layers=layers,
                build_abstract=build_abstract,
            )
            for layers, arrays in _apart(trained, config.name in LAYERWISE)
        ]
        self._ema_decay = config.ema_decay
        self._slots = {n: s for group in self._groups for n, s in group.slots.items()}
        if config.ema_decay is not None:
            for path, array in trained.items():
                slot = Slot(AVERAGE, path, tuple(array.shape), array.dtype.name)
                self._slots[f"{AVERAGE}/{path}"] = slot
        self._beside = {ITERATION: jax.ShapeDtypeStruct((), "int32"), **(beside or {})}
        self.shardings = dict.fromkeys(self._beside, replicated) | {
            name: _slot_sharding(slot, shardings[slot.path])
            for name, slot in self._slots.items()
        }

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Return shape, dtype and sharding of every slot."""
        return {
            name: jax.ShapeDtypeStruct(
                slot.shape, slot.dtype, sharding=self.shardings[name]
            )
            for name, slot in {**self._beside, **self._slots}.items()
        }

    def initial_slots(self) -> Arrays:
        """Return the slots before the first update, zeros, sharded as their weights.

        One program makes them all: it compiles in a fifth of the time of one a slot.
        """
        shapes = self.shapes()

        def zeros() -> Arrays:
            return {
                name: jnp.zeros(slot.shape, slot.dtype) for name, slot in shapes.items()
            }

        return jax.jit(
            zeros, out_shardings={n: s.sharding for n, s in shapes.items()}
        )()

    def apply(
        self, gradients: Arrays, weights: Arrays, slots: Arrays
    ) -> tuple[Arrays, Arrays]:
        """Return the weights and slots after one update; pure."""
        updated: Arrays = {}
        new_slots: Arrays = {ITERATION: slots[ITERATION] + 1}
        for group in self._groups:
            group_weights, group_slots = group.apply(gradients, weights, slots)
            updated |= group_weights
            new_slots |= group_slots
        if self._ema_decay is not None:
            new_slots |= self._averages(updated, slots)
        return {path: updated[path] for path in self._paths}, new_slots

    def learning_rate(self, slots: Arrays) -> jax.Array:
        """Return the learning rate that the next update will use."""
        return self._schedule(slots[ITERATION])

    def rules(self) -> dict[str, list[str]]:
        """Map each rule of update to the arrays that it is really applied to.

        Keras's Muon updates variables of two dims that are no embedding; the others
        get AdamW's update, and have its second moment beside the momentum.
        """
        if self._name != "muon":
            return {self._name: self._paths}
        by_adamw = {s.path for s in self._slots.values() if s.kind == "velocity"}
        return {
            "muon": [path for path in self._paths if path not in by_adamw],
            "adamw": [path for path in self._paths if path in by_adamw],
        }

    def _averages(self, weights: Arrays, slots: Arrays) -> Arrays:
        """Return the moving averages; the first one is the weights, as Keras has it."""
        decay = jnp.where(slots[ITERATION] == 0, 0.0, self._ema_decay)
        return {
            name: (decay * slots[name] + (1.0 - decay) * weight).astype(weight.dtype)
            for name, weight in ((f"{AVERAGE}/{p}", w) for p, w in weights.items())
        }


def averaged_weights(weights: Arrays, slots: Arrays) -> Arrays:
    """Return the moving averages of the weights, or the weights where none are kept.

    There is no average before the first update. Not for use inside a compiled function.
    """
    averages = {path: f"{AVERAGE}/{path}" for path in weights}
    if any(name not in slots for name in averages.values()):
        return weights
    if int(slots[ITERATION]) == 0:
        return weights
    return {path: slots[name] for path, name in averages.items()}


def global_norm(gradients: Arrays) -> jax.Array:
    """Return the norm of all gradients together, float32."""
    squares = [jnp.sum(jnp.square(g.astype("float32"))) for g in gradients.values()]
    return jnp.sqrt(jnp.sum(jnp.stack(squares)))


def clip_by_norm(gradients: Arrays, norm: jax.Array, clip_norm: float | None) -> Arrays:
    """Scale gradients of a global norm to one of at most `clip_norm`; None never."""
    if clip_norm is None:
        return gradients
    scale = jnp.minimum(1.0, clip_norm / jnp.maximum(norm, 1e-12))
    return {path: g * scale.astype(g.dtype) for path, g in gradients.items()}


def _apart(
    trained: Mapping[str, Trained], is_layerwise: bool
) -> Iterator[tuple[int | None, dict[str, Trained]]]:
    """Yield the arrays that are updated together, with their number of layers.

    Layer by layer every stack is a group of its own, so that no more than one needs
    memory beside the state at a time.
    """
    whole = dict(trained)
    if is_layerwise:
        whole = {path: array for path, array in trained.items() if not array.is_stacked}
        for path in [path for path in trained if path not in whole]:
            yield trained[path].shape[0], {path: trained[path]}
    if whole:
        yield None, whole


def _slot_sharding(slot: Slot, weight: NamedSharding) -> NamedSharding:
    """Return how a slot lies: as its weight, without the dim that was averaged away."""
    axes = tuple(weight.spec)
    if slot.kind not in ("row", "column"):
        return weight
    axes += (None,) * (len(slot.shape) + 1 - len(axes))
    kept = axes[:-1] if slot.kind == "row" else (*axes[:-2], axes[-1])
    return NamedSharding(weight.mesh, PartitionSpec(*kept))
