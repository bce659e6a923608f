"""Fills the state tree: weights from a preset, adapters, or random numbers.

Turns a source of weights into sharded stacked arrays, one stack at a time and only
the slices that this process's devices hold; nothing is ever whole on the host.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from gemma.arrays import Index, assemble
from gemma.presets import WeightSource, check_each_once
from gemma.stacked import StackedVariable

Tree = dict[str, StackedVariable]
Arrays = dict[str, jax.Array]


def load_arrays(
    tree: Tree,
    source: WeightSource,
    sharding: Callable[[StackedVariable], NamedSharding],
    *,
    left_out: Tree | None = None,
) -> Arrays:
    """Read every variable of `tree` from `source`, each slice once per process.

    Args:
        tree: Variables to read.
        source: Where they are.
        sharding: Where each lies on the devices.
        left_out: Variables of the source that come from elsewhere.

    Raises:
        PresetFileError: A variable would stay unread, or one would be read twice.
    """
    whole = tree | (left_out or {})
    members = [
        member.path for variable in whole.values() for member in variable.members
    ]
    check_each_once(members, source.paths())
    return {
        path: _assemble(variable, sharding(variable), source.read_into)
        for path, variable in tree.items()
    }


def arrays_from_members(
    tree: Tree,
    values: Mapping[str, np.ndarray],
    sharding: Callable[[StackedVariable], NamedSharding],
) -> Arrays:
    """Stack values that are given by variable path, such as an adapter file's."""

    def write(out: np.ndarray, path: str, index: Index) -> None:
        out[...] = values[path][index]

    return {
        path: _assemble(variable, sharding(variable), write)
        for path, variable in tree.items()
    }


def random_arrays(
    tree: Tree, sharding: Callable[[StackedVariable], NamedSharding], *, seed: int
) -> Arrays:
    """Draw every variable as its Keras initializer would, from `seed` and its path.

    The numbers depend on seed, path and layer only, not on the mesh. One program draws
    them all, a layer at a time: a stack is never held twice.
    """

    def draw() -> Arrays:
        return {path: _draw(variable, seed) for path, variable in tree.items()}

    places = {path: sharding(variable) for path, variable in tree.items()}
    return jax.jit(draw, out_shardings=places)() if tree else {}


def _draw(variable: StackedVariable, seed: int) -> jax.Array:
    member = variable.members[0]
    kind = type(member._initializer).__name__
    shape = tuple(member.shape)

    def one(number: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), number)
        if kind == "Zeros":
            return jnp.zeros(shape, variable.dtype)
        if kind == "RandomNormal":
            value = jax.random.normal(key, shape, "float32")
            return (value * member._initializer.stddev).astype(variable.dtype)
        # the adapters' A: both of its initializers are uniform, with a variance
        limit = np.sqrt(3.0 * member._initializer.scale / _fan_in(shape))
        return jax.random.uniform(key, shape, "float32", -limit, limit)

    numbers = jnp.asarray(
        [zlib.crc32(m.path.encode()) for m in variable.members], "uint32"
    )
    return jax.lax.map(one, numbers) if variable.is_stacked else one(numbers[0])


def _fan_in(shape: tuple[int, ...]) -> int:
    """Inputs summed by an output; for (heads, hidden, rank) the hidden dim."""
    return shape[-2]


def _assemble(
    variable: StackedVariable,
    sharding: NamedSharding,
    write: Callable[[np.ndarray, str, Index], None],
) -> jax.Array:
    """Return the array of a variable; its members are written where they belong."""

    def write_slice(out: np.ndarray, index: Index) -> None:
        if not variable.is_stacked:
            write(out, variable.members[0].path, index)
            return
        layers = variable.members[index[0]]
        for part, member in zip(out, layers, strict=True):
            write(part, member.path, index[1:])

    return assemble(variable.shape, variable.dtype, sharding, write_slice)
