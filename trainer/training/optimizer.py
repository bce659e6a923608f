"""Keras's optimizers on the stacked state tree.

Turns `optimizer.*` into pure functions from gradients and slots to weights and slots,
slots sharded as their weights. Only optimizers whose update of an element does not
depend on the other elements of its variable are allowed here: stacking layers would
change what the others mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import keras
from jax.sharding import NamedSharding

from trainer.config.errors import ConfigError
from trainer.config.schema import OptimizerConfig
from trainer.training.schedule import Schedule

Arrays = dict[str, jax.Array]


class Trained(Protocol):
    """What an optimizer needs to know of an array that it trains."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, layers first."""

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of the weight and its slots."""


BuildAbstract = Callable[[Callable[[], None]], None]
"""Runs a function so that the Keras variables which it makes stay empty."""


class StackedOptimizer:
    """One Keras optimizer over the trained arrays.

    Slots are a flat dict: `iteration`, and for every weight `<slot>/<path>`.
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
    ) -> None:
        self._paths = list(trained)
        self._keras = _keras_optimizer(config, schedule)
        self._slots, parents = self._build(trained, build_abstract)
        self.shardings = {
            name: shardings[parents[name]] if name in parents else replicated
            for name in self._slots
        }
        self._schedule = schedule

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Return shape, dtype and sharding of every slot."""
        return {
            name: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=self.shardings[name])
            for name, v in self._slots.items()
        }

    def initial_slots(self) -> Arrays:
        """Return the slots before the first update, zeros, sharded as their weights."""
        return {
            name: jax.jit(
                lambda v=variable: jnp.zeros(v.shape, v.dtype),
                out_shardings=self.shardings[name],
            )()
            for name, variable in self._slots.items()
        }

    def apply(
        self, gradients: Arrays, weights: Arrays, slots: Arrays
    ) -> tuple[Arrays, Arrays]:
        """Return the weights and slots after one update; pure."""
        variables = self._keras.variables
        names = {id(variable): name for name, variable in self._slots.items()}
        values = [slots[names[id(v)]] if id(v) in names else v.value for v in variables]
        new_weights, new_values = self._keras.stateless_apply(
            values,
            [gradients[path] for path in self._paths],
            [weights[path] for path in self._paths],
        )
        updated = {
            names[id(v)]: value
            for v, value in zip(variables, new_values, strict=True)
            if id(v) in names
        }
        return dict(zip(self._paths, new_weights, strict=True)), updated

    def learning_rate(self, slots: Arrays) -> jax.Array:
        """Return the learning rate that the next update will use."""
        return self._schedule(slots["iteration"])

    def _build(
        self, trained: Mapping[str, Trained], build_abstract: BuildAbstract
    ) -> tuple[dict[str, keras.Variable], dict[str, str]]:
        """Create the abstract slots and remember which weight each belongs to.

        Keras names slots by position; its hook for new slots tells their weights.
        """
        parents: dict[int, tuple[str, str]] = {}
        original = self._keras.add_variable_from_reference

        def record(
            reference_variable: keras.Variable, *args: object, **kwargs: object
        ) -> keras.Variable:
            slot = original(reference_variable, *args, **kwargs)
            kind = kwargs.get("name") or args[0]
            parents[id(slot)] = (kind, reference_variable.name.replace(".", "/"))
            return slot

        self._keras.add_variable_from_reference = record
        build_abstract(lambda: self._keras.build(_abstract_variables(trained)))
        del self._keras.add_variable_from_reference
        slots, owners = {"iteration": self._keras.iterations}, {}
        for variable in self._keras.variables:
            if id(variable) in parents:
                kind, path = parents[id(variable)]
                slots[f"{kind}/{path}"] = variable
                owners[f"{kind}/{path}"] = path
        return slots, owners


def clip_by_global_norm(
    gradients: Arrays, clip_norm: float | None
) -> tuple[Arrays, jax.Array]:
    """Scale gradients to a global norm of at most `clip_norm`; return the norm too."""
    squares = [jnp.sum(jnp.square(g.astype("float32"))) for g in gradients.values()]
    norm = jnp.sqrt(jnp.sum(jnp.stack(squares)))
    if clip_norm is None:
        return gradients, norm
    scale = jnp.minimum(1.0, clip_norm / jnp.maximum(norm, 1e-12))
    return {path: g * scale.astype(g.dtype) for path, g in gradients.items()}, norm


def _keras_optimizer(
    config: OptimizerConfig, schedule: Schedule
) -> keras.optimizers.Optimizer:
    decay = config.weight_decay or None
    if config.name == "adamw":
        optimizer = keras.optimizers.AdamW(
            learning_rate=schedule,
            weight_decay=decay or 0.0,
            beta_1=config.beta_1,
            beta_2=config.beta_2,
            epsilon=config.epsilon,
        )
    elif config.name == "sgd":
        optimizer = keras.optimizers.SGD(
            learning_rate=schedule, momentum=config.beta_1, weight_decay=decay
        )
    else:
        raise ConfigError(
            key="optimizer.name",
            expected="adamw or sgd",
            received=config.name,
            fix="optimizer=adamw",
        )
    kept_whole = ["scale"] if config.decay_embeddings else ["scale", "embeddings"]
    optimizer.exclude_from_weight_decay(var_names=kept_whole)
    return optimizer


def _abstract_variables(trained: Mapping[str, Trained]) -> list[keras.Variable]:
    # Keras searches exclusions in the name and forbids slashes there
    return [
        keras.Variable(
            initializer="zeros",
            shape=variable.shape,
            dtype=variable.dtype.name,
            name=path.replace("/", "."),
        )
        for path, variable in trained.items()
    ]
