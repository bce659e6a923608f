"""The learning rate as a function of the step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import keras

from trainer.config.errors import ConfigError


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up to the peak, then constant, linear or cosine to the last step.

    `wsd` (warm-up, stable, decay) stays at the peak and falls linearly in the last
    `decay_fraction` of the steps. `iteration` counts finished updates, from 0. The
    first update has the warm-up's first part, not zero, so that no step is wasted.
    """

    def __init__(
        self,
        name: str,
        *,
        peak: float,
        warmup_steps: int,
        num_train_steps: int,
        final_fraction: float,
        decay_fraction: float = 0.2,
    ) -> None:
        if name not in _DECAYS:
            raise ConfigError(
                key="schedule.name",
                expected=f"one of {', '.join(_DECAYS)}",
                received=name,
                fix="schedule=constant",
            )
        self.name, self.peak = name, peak
        self.warmup_steps, self.num_train_steps = warmup_steps, num_train_steps
        self.final_fraction, self.decay_fraction = final_fraction, decay_fraction

    def __call__(self, iteration: jax.typing.ArrayLike) -> jax.Array:
        """Return the learning rate of the update after `iteration` updates."""
        step = jnp.asarray(iteration, "float32")
        warmup = jnp.minimum((step + 1) / max(self.warmup_steps, 1), 1.0)
        first = self._first_decayed_step()
        length = max(self.num_train_steps - first, 1)
        progress = jnp.clip((step - first) / length, 0.0, 1.0)
        low = self.final_fraction
        factor = low + (1.0 - low) * _DECAYS[self.name](progress)
        return self.peak * warmup * factor

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "name": self.name,
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "num_train_steps": self.num_train_steps,
            "final_fraction": self.final_fraction,
            "decay_fraction": self.decay_fraction,
        }

    def _first_decayed_step(self) -> int:
        if self.name != "wsd":
            return self.warmup_steps
        stable = 1.0 - self.decay_fraction
        return max(round(self.num_train_steps * stable), self.warmup_steps)


_DECAYS = {
    "constant": lambda progress: jnp.ones_like(progress),
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + jnp.cos(jnp.pi * progress)),
    "wsd": lambda progress: 1.0 - progress,
}
