"""Which of Keras's optimizers a configuration means.

Turns `optimizer.*` into one of Keras's objects. It refuses to know stacked arrays and
shardings: `trainer.training.update_group` applies what is chosen here to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from trainer.config.errors import ConfigError
from trainer.config.schema import OptimizerConfig
from trainer.training.schedule import Schedule

Optimizer = keras.optimizers.Optimizer
Common = dict[str, Any]
"""Arguments that all of Keras's optimizers take."""
LAYERWISE = ("adafactor", "muon")
"""Their update of an element depends on the other elements of its variable."""


def keras_optimizer(config: OptimizerConfig, schedule: Schedule) -> Optimizer:
    """Return the optimizer of a configuration, not built; norms are never decayed.

    Raises:
        ConfigError: Its name is none of ours.
    """
    if config.name not in _CHOICES:
        raise ConfigError(
            key="optimizer.name",
            expected=f"one of {', '.join(_CHOICES)}",
            received=config.name,
            fix="optimizer=adamw",
        )
    common: Common = {"learning_rate": schedule, "name": config.name}
    optimizer = _CHOICES[config.name](config, common)
    kept_whole = ["scale"] if config.decay_embeddings else ["scale", "embeddings"]
    optimizer.exclude_from_weight_decay(var_names=kept_whole)
    return optimizer


class Adafactor(keras.optimizers.Adafactor):
    """Keras's Adafactor with slots that can be made without memory, and smaller ones.

    Keras 3.15 makes a concrete scalar for what has one dim, which no stateless scope
    allows, and keeps the second moment of what has two dims although it is computed
    from row and column in every update: here it is scratch, so that the state is a
    row and a column. The update is Keras's, unchanged.
    """

    def build(self, var_list: list[keras.Variable]) -> None:
        """Make the slots: `row` and `column` from two dims on, else `velocity`."""
        keras.optimizers.Optimizer.build(self, var_list)
        self._r, self._c, self._v = [], [], []
        for variable in var_list:
            shape = tuple(variable.shape)
            if len(shape) < 2:
                row = column = None
                moment = self.add_variable_from_reference(variable, name="velocity")
            else:
                row = self._factor(variable, shape[:-1], "row")
                column = self._factor(variable, (*shape[:-2], shape[-1]), "column")
                moment = self.add_variable(
                    shape, dtype=variable.dtype, name=f"{variable.name}_scratch"
                )
            self._r.append(row)
            self._c.append(column)
            self._v.append(moment)

    def _factor(
        self, variable: keras.Variable, shape: tuple[int, ...], name: str
    ) -> keras.Variable:
        reference = keras.Variable(
            initializer="zeros", shape=shape, dtype=variable.dtype, name=variable.name
        )
        return self.add_variable_from_reference(reference, name=name)


def _adamw(config: OptimizerConfig, common: Common) -> Optimizer:
    return keras.optimizers.AdamW(
        weight_decay=config.weight_decay,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        epsilon=config.epsilon,
        **common,
    )


def _adafactor(config: OptimizerConfig, common: Common) -> Optimizer:
    return Adafactor(weight_decay=config.weight_decay or None, **common)


def _lion(config: OptimizerConfig, common: Common) -> Optimizer:
    return keras.optimizers.Lion(
        weight_decay=config.weight_decay or None,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        **common,
    )


def _muon(config: OptimizerConfig, common: Common) -> Optimizer:
    return keras.optimizers.Muon(
        weight_decay=config.weight_decay or None,
        adam_weight_decay=config.weight_decay or None,
        adam_beta_1=config.beta_1,
        adam_beta_2=config.beta_2,
        epsilon=config.epsilon,
        **common,
    )


def _sgd(config: OptimizerConfig, common: Common) -> Optimizer:
    return keras.optimizers.SGD(
        momentum=config.beta_1, weight_decay=config.weight_decay or None, **common
    )


_CHOICES: dict[str, Callable[[OptimizerConfig, Common], Optimizer]] = {
    "adamw": _adamw,
    "adafactor": _adafactor,
    "lion": _lion,
    "muon": _muon,
    "sgd": _sgd,
}
