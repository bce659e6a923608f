"""Gemma as pure functions over weights that are stacked over layers."""

from gemma.stacked.forward import Constraints, Stacked
from gemma.stacked.tree import StackedVariable, stacked_tree

__all__ = ["Constraints", "Stacked", "StackedVariable", "stacked_tree"]
