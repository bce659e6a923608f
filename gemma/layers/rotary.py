"""Rotary positions: turns each half of a head by an angle that grows with position."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gemma.config import Rope


def rotate(x: jax.Array, positions: jax.Array, rope: Rope) -> jax.Array:
    """Rotate x [batch, seq, heads, head_dim] by its positions [batch, seq] (int32).

    The first and second half of a head form the pairs. Angles are float32: bfloat16
    cannot tell position 257 from 256.

    Source: Su et al. 2021, arXiv 2104.09864; the halves as in Gemma's own code, the
    linear scaling of positions as in Chen et al. 2023, arXiv 2306.15595.
    """
    half = x.shape[-1] // 2
    fraction = jnp.arange(half, dtype="float32") / half
    inverse_wavelength = rope.max_wavelength**-fraction / rope.scaling_factor
    angles = positions[..., None, None].astype("float32") * inverse_wavelength
    # without the barrier XLA:CPU computes them again for every head and every layer
    sine, cosine = jax.lax.optimization_barrier((jnp.sin(angles), jnp.cos(angles)))
    first, second = x[..., :half].astype("float32"), x[..., half:].astype("float32")
    rotated = (first * cosine - second * sine, second * cosine + first * sine)
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
