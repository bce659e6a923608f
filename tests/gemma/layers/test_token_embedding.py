"""The tied embedding: logits of single tokens and of sequences, which lie apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma.layers.token_embedding import unembed

ROUNDING = 1e-6
"""Sums of 64 float32 products of about 1, in another order, relative to the largest."""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_of_one_token_are_those_of_a_sequence(dtype):
    keys = jax.random.split(jax.random.key(0))
    hidden = jax.random.normal(keys[0], (8, 64), dtype)
    table = jax.random.normal(keys[1], (512, 64), dtype)
    alone = unembed(hidden, table, soft_cap=None)
    in_sequence = unembed(hidden[:, None], table, soft_cap=None)[:, 0]
    assert alone.dtype == in_sequence.dtype == jnp.float32
    scale = np.abs(in_sequence).max()
    np.testing.assert_allclose(alone, in_sequence, rtol=0, atol=ROUNDING * scale)
