"""Builds Keras models that have paths, shapes and dtypes, and no arrays.

Turns a constructor into a model whose variables are all empty, so that a 27B backbone
costs a second and no memory. Their values live elsewhere (`gemma.stacked`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from gemma.backend import select_jax

select_jax()

import keras  # noqa: E402  the backend is chosen first
from keras.src.backend.common import global_state  # noqa: E402

Model = TypeVar("Model")


def build_abstract(build: Callable[[], Model]) -> Model:
    """Run `build` without allocating any variable that it makes.

    Keras 3.15 remembers abstract variables and fills all of them when any later
    default `StatelessScope` ends; the memory is cleared here, which also forgets
    abstract variables of others. `tests/gemma/test_abstract.py` pins this.
    """
    try:
        with keras.StatelessScope(initialize_variables=False):
            return build()
    finally:  # after an error too: those built before it would be filled
        global_state.set_global_attribute("uninitialized_variables", [])


def is_abstract(variables: Iterable[keras.Variable]) -> bool:
    """Return whether none of the variables holds a value."""
    return all(variable._value is None for variable in variables)
