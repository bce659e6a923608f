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
