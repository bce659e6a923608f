"""Which of the run's processes this one is."""

from __future__ import annotations

import jax


def process_index() -> int:
    """Return this process's number, from 0."""
    return jax.process_index()


def process_count() -> int:
    """Return how many processes the run has."""
    return jax.process_count()


def is_primary() -> bool:
    """Return whether this process writes what a run has one of."""
    return jax.process_index() == 0


def may_be_of_peers(error: Exception) -> bool:
    """Return whether an error can say that another process of the run is gone.

    jaxlib 0.10.2 tells what gloo meets as a JaxRuntimeError, or as a ValueError where
    the host reads an array that was never finished.
    """
    if process_count() == 1:
        return False
    is_gloo = isinstance(error, ValueError) and "Gloo" in str(error)
    return is_gloo or isinstance(error, jax.errors.JaxRuntimeError)
