"""Fills a backbone that was built without memory from a source of weights.

Turns arrays in files into the values of Keras variables, each read once and straight
into the memory that becomes the value, on a mesh slice by slice. It refuses to know
presets and layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import keras
import numpy as np

from gemma.abstract import build_abstract
from gemma.arrays import Index, assemble
from gemma.presets import WeightSource, aligned_empty, check_each_once

Model = TypeVar("Model", bound=keras.Model)


def build_empty(build: Callable[[], Model]) -> Model:
    """Build a model whose weights have no values yet; its random states have."""
    model = build_abstract(build)
    weights = {id(variable) for variable in model.weights}
    for variable in model.variables:
        if id(variable) not in weights:  # in no file
            variable.assign(variable.value)
    return model


def load_variables(variables: Sequence[keras.Variable], source: WeightSource) -> None:
    """Give every variable its value, cast to its dtype and laid out on the mesh.

    Raises:
        PresetFileError: A variable has no array, or an array no variable.
    """
    check_each_once([variable.path for variable in variables], source.paths())
    for variable in variables:
        variable._initialize_layout()  # Keras's own would also draw a value
        variable.assign(_read(variable, source))


def _read(variable: keras.Variable, source: WeightSource) -> jax.Array:
    shape, dtype = tuple(variable.shape), jnp.dtype(variable.dtype)
    layout = variable._layout
    if layout is None:
        memory = aligned_empty(shape, dtype)
        source.read_into(memory, variable.path)
        return jax.device_put(memory)  # jnp.asarray would copy it

    def write(out: np.ndarray, index: Index) -> None:
        source.read_into(out, variable.path, index)

    sharding = getattr(layout, "backend_layout", layout)
    return assemble(shape, dtype, sharding, write)
