"""Gemma as pure functions over weights that are stacked over layers."""

from gemma.backend import select_jax

select_jax()

from gemma.stacked.forward import (  # noqa: E402  the backend is chosen first
    Constraints,
    Stacked,
)
from gemma.stacked.tree import StackedVariable, should_scan_stretches, stacked_tree  # noqa: E402

__all__ = [
    "Constraints",
    "Stacked",
    "StackedVariable",
    "should_scan_stretches",
    "stacked_tree",
]
