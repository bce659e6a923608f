"""Fingerprints of arrays, computed where the arrays live.

Turns arrays of any sharding into one 32-bit number each that changes with every
single bit and not with the mesh: no array is gathered, no file is read again. It
refuses to know how and where arrays are stored.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

# Odd multipliers mix the indices of the dims; without them a transposed array, or
# one with two rows exchanged, would keep its digest.
_MULTIPLIERS = (2654435761, 2246822519, 3266489917, 668265263, 374761393, 2860486313)
_MANY = 8  # layers or rows: what is summed over them first takes an eighth at most


def digests(arrays: Mapping[str, jax.Array]) -> dict[str, int]:
    """Return the digest of every array, an unsigned 32-bit number by name.

    Waits until the arrays are computed. Every process calls it; all get the same.
    """
    return finish(start(arrays))


def compile_ahead(arrays: Mapping[str, jax.Array]) -> None:
    """Compile what `start` runs, so that the first save of such arrays need not."""
    _digests.lower(dict(arrays)).compile()


def start(arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Begin to compute digests, in every process, before arrays may be donated."""
    started = _digests(dict(arrays))
    if jax.default_backend() == "cpu" and jax.device_count() > 1:
        # XLA:CPU (jaxlib 0.10.2) aborts when collectives of several programs in
        # flight wait for each other's threads, whatever it is told at the start
        jax.block_until_ready(started)
    return dict(started)


def finish(started: Mapping[str, jax.Array]) -> dict[str, int]:
    """Wait for digests; any thread of any process may, alone."""
    return {name: _as_int(value) for name, value in started.items()}


@jax.jit
def _digests(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Return all digests from one program: one compilation, one round of sums."""
    return {name: _digest(array) for name, array in arrays.items()}


def _digest(array: jax.Array) -> jax.Array:
    """Return the sum of all words, each times an odd number drawn from its place.

    A changed bit adds 2^k times an odd number, which is never 0 modulo 2^32.
    """
    words = _words(array)
    place = jnp.zeros(words.shape, jnp.uint32)
    for dim in range(words.ndim):
        index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, dim)
        place += (index + 1) * jnp.uint32(_MULTIPLIERS[dim % len(_MULTIPLIERS)])
    place ^= place >> 15  # high bits reach low ones: the weights are not linear
    weighted = words * (2 * place + 1)
    if jax.default_backend() == "cpu" and words.ndim > 1 and len(words) >= _MANY:
        # one sum takes one thread of XLA:CPU, many take all: 4 and 30 GB/s on two cores
        weighted = jnp.sum(weighted, axis=0, dtype=jnp.uint32)
        weighted = jax.lax.optimization_barrier(weighted)
    return jnp.sum(weighted, dtype=jnp.uint32)


def _words(array: jax.Array) -> jax.Array:
    """Return the bits of `array` as uint32, one or two for every element."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    bits = min(8 * array.dtype.itemsize, 32)
    return jax.lax.bitcast_convert_type(array, f"uint{bits}").astype(jnp.uint32)


def _as_int(value: jax.Array) -> int:
    """Return a replicated scalar, also one that other processes hold copies of."""
    return int(np.asarray(value.addressable_data(0)))
