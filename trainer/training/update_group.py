"""One Keras optimizer over arrays that are updated in the same way.

Turns gradients, weights and slots into new weights and slots by Keras's
`stateless_apply`: on whole stacks where elements do not depend on each other, else
layer by layer, so that every layer gets what it would get as a variable of its own.
It refuses to know which optimizer that is, and where arrays lie.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import keras

Arrays = dict[str, jax.Array]
BuildAbstract = Callable[[Callable[[], None]], None]
"""Runs a function so that the Keras variables which it makes stay empty."""
ITERATION = "iteration"
"""Slot with the number of finished updates; every group reads the same one."""


class Trained(Protocol):
    """What an optimizer needs to know of an array that it trains."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, layers first."""

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of the weight and its slots."""

    @property
    def is_stacked(self) -> bool:
        """Whether the first dim is that of the layers."""


@dataclasses.dataclass(frozen=True)
class Slot:
    """One array of an optimizer's state.

    Attributes:
        kind: What it is to its weight, such as `momentum`.
        path: The weight that it belongs to.
        shape: Shape, layers first.
        dtype: Dtype of its weight.
    """

    kind: str
    path: str
    shape: tuple[int, ...]
    dtype: str


class UpdateGroup:
    """Arrays that one Keras optimizer updates together.

    Args:
        optimizer: Not built.
        trained: The arrays by path.
        layers: How often the update is repeated, along the first dim of every array;
            None updates the arrays as they are.
        build_abstract: Keeps the variables that are made here empty.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        trained: Mapping[str, Trained],
        *,
        layers: int | None,
        build_abstract: BuildAbstract,
    ) -> None:
        self._keras, self._layers = optimizer, layers
        self._paths = list(trained)
        self._variables = self._build(trained, build_abstract)
        stack = () if layers is None else (layers,)
        self.slots = {}
        for name, variable in self._variables.items():
            kind, path = name.split("/", 1)
            shape = (*stack, *variable.shape)
            self.slots[name] = Slot(kind, path, shape, variable.dtype)

    def apply(
        self, gradients: Arrays, weights: Arrays, slots: Arrays
    ) -> tuple[Arrays, Arrays]:
        """Return this group's weights and slots after one update; pure.

        Args:
            gradients: Of the group's arrays and maybe of others.
            weights: As `gradients`.
            slots: `iteration`, the group's slots, and maybe others.
        """
        iteration = slots[ITERATION]
        gradients = {path: gradients[path] for path in self._paths}
        weights = {path: weights[path] for path in self._paths}
        slots = {name: slots[name] for name in self.slots}
        if self._layers is None:
            return self._apply(gradients, weights, slots, iteration)
        return self._apply_each_layer(gradients, weights, slots, iteration)

    def _apply_each_layer(
        self, gradients: Arrays, weights: Arrays, slots: Arrays, iteration: jax.Array
    ) -> tuple[Arrays, Arrays]:
        """Update one layer after the other.

        Weights are written where they lie. Slots are not: the weight's update reads
        them, and XLA would copy the whole stack of a slot for every layer.
        """

        def update(stacks: Arrays, xs: tuple) -> tuple[Arrays, Arrays]:
            layer, gradients, slots = xs
            weights = {
                path: jax.lax.dynamic_index_in_dim(stack, layer, keepdims=False)
                for path, stack in stacks.items()
            }
            updated, slots = self._apply(gradients, weights, slots, iteration)
            stacks = {
                path: jax.lax.dynamic_update_index_in_dim(
                    stack, updated[path], layer, 0
                )
                for path, stack in stacks.items()
            }
            return stacks, slots

        layers = jnp.arange(self._layers)
        return jax.lax.scan(update, weights, (layers, gradients, slots))

    def _apply(
        self, gradients: Arrays, weights: Arrays, slots: Arrays, iteration: jax.Array
    ) -> tuple[Arrays, Arrays]:
        variables = self._keras.variables
        names = {id(variable): name for name, variable in self._variables.items()}
        names[id(self._keras.iterations)] = ITERATION
        given = {**slots, ITERATION: iteration}
        values = [
            given[names[id(v)]] if id(v) in names else jnp.zeros(v.shape, v.dtype)
            for v in variables
        ]
        new_weights, new_values = self._keras.stateless_apply(
            values,
            [gradients[path] for path in self._paths],
            [weights[path] for path in self._paths],
        )
        updated = {
            names.get(id(v)): value
            for v, value in zip(variables, new_values, strict=True)
        }
        new_slots = {name: updated[name] for name in slots}
        return dict(zip(self._paths, new_weights, strict=True)), new_slots

    def _build(
        self, trained: Mapping[str, Trained], build_abstract: BuildAbstract
    ) -> dict[str, keras.Variable]:
        """Create the abstract slots, by `<kind>/<path>` of the weight of each.

        Keras names slots by position; its hook for new slots tells their weights. What
        does not pass there is scratch, and no update reads it before it is written.
        """
        slots: dict[str, keras.Variable] = {}
        original = self._keras.add_variable_from_reference

        def record(
            reference_variable: keras.Variable, *args: object, **kwargs: object
        ) -> keras.Variable:
            slot = original(reference_variable, *args, **kwargs)
            kind = kwargs.get("name") or args[0]
            slots[f"{kind}/{reference_variable.name.replace('.', '/')}"] = slot
            return slot

        self._keras.add_variable_from_reference = record
        build_abstract(lambda: self._keras.build(self._abstract_variables(trained)))
        del self._keras.add_variable_from_reference
        return slots

    def _abstract_variables(
        self, trained: Mapping[str, Trained]
    ) -> list[keras.Variable]:
        first = 0 if self._layers is None else 1
        # Keras searches exclusions in the name and forbids slashes there
        return [
            keras.Variable(
                initializer="zeros",
                shape=array.shape[first:],
                dtype=array.dtype.name,
                name=path.replace("/", "."),
            )
            for path, array in trained.items()
        ]
