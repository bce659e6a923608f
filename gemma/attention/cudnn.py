"""Attention by cuDNN's fused kernels, through JAX, for NVIDIA GPUs.

They know the causal order and windows, but neither a soft cap nor segments: a mask of
segments would have the size of all scores. So they serve Gemma 1 and 3 where each
sequence holds one row. Nothing here was measured on a GPU yet; what is passed to JAX is
held against the reference through JAX's own form of the same function.
"""

from __future__ import annotations

from typing import Literal

import jax

from gemma.attention.sight import Sight


def attend_cudnn(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    sight: Sight,
    *,
    soft_cap: float | None,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """Attend as `gemma.attention.Attention`: no soft cap, no segments, 16 bits.

    The implementation `xla` is JAX's own form of the same, which runs anywhere.
    """
    assert soft_cap is None and sight.segments is None, "refused by the choice of path"
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        scale=1.0,
        is_causal=True,
        local_window_size=None if sight.window is None else (sight.window - 1, 0),
        implementation=implementation,
    )
