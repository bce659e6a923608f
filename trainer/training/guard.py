"""Which updates are made: those of finite numbers and, where asked, of usual ones.

Turns the loss and the gradient norm of a step into one boolean on the devices. What is
usual is told by the updates before, whose numbers are kept in two slots of the state;
a step that was left out is in neither. It refuses to know what an update is, and what
happens after one that was not made.

Source: the window and its beginning are those of OLMo-core's and Levanter's skipping.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from trainer.training.update_group import ITERATION, Arrays

WINDOW_UPDATES = 128
FEWEST_UPDATES = 64  # before so many nothing is known to be unusual
LOSS, GRAD_NORM = "recent/loss", "recent/grad_norm"


def recent_slots() -> dict[str, jax.ShapeDtypeStruct]:
    """Return the slots that hold the numbers of the last updates."""
    shape = jax.ShapeDtypeStruct((WINDOW_UPDATES,), "float32")
    return {LOSS: shape, GRAD_NORM: shape}


def is_finite(*numbers: jax.Array) -> jax.Array:
    """Return whether all of some scalars are finite, as a scalar."""
    return jnp.isfinite(jnp.stack(numbers)).all()


def is_usual(numbers: Arrays, slots: Arrays, *, deviations: float) -> jax.Array:
    """Return whether no number of a step is a spike, as a scalar.

    Args:
        numbers: Scalars, by the slots with what they were in the last updates.
        slots: Of the state, the number of its updates among them.
        deviations: Standard deviations above the mean, beyond which there is a spike.
    """
    updates = slots[ITERATION]
    checks = [
        number <= _limit(slots[name], updates, deviations)
        for name, number in numbers.items()
    ]
    return jnp.stack(checks).all() | (updates < FEWEST_UPDATES)


def remember(numbers: Arrays, slots: Arrays) -> Arrays:
    """Return the recent numbers after an update: the oldest give way to its own.

    Args:
        numbers: As `is_usual` takes them.
        slots: Of the state before the update.
    """
    place = slots[ITERATION] % WINDOW_UPDATES
    return {name: slots[name].at[place].set(n) for name, n in numbers.items()}


def _limit(recent: jax.Array, updates: jax.Array, deviations: float) -> jax.Array:
    """Return mean and deviations of the part of a window that has been filled."""
    is_known = jnp.arange(WINDOW_UPDATES) < updates
    count = jnp.clip(updates, 1, WINDOW_UPDATES).astype("float32")
    mean = jnp.where(is_known, recent, 0.0).sum() / count
    squares = jnp.where(is_known, jnp.square(recent - mean), 0.0)
    return mean + deviations * jnp.sqrt(squares.sum() / count)
