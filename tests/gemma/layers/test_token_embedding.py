"""The tied embedding: logits of single tokens and of sequences, which lie apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma.layers.token_embedding import unembed, unembed_one_token

ROUNDING = 1e-6
"""Sums of 64 float32 products of about 1, in another order, relative to the largest."""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_of_one_token_are_those_of_a_sequence(dtype):
    keys = jax.random.split(jax.random.key(0))
    hidden = jax.random.normal(keys[0], (8, 64), dtype)
    table = jax.random.normal(keys[1], (512, 64), dtype)
    alone = unembed_one_token(hidden, table, soft_cap=None)
    in_sequence = unembed(hidden[:, None], table, soft_cap=None)[:, 0]
    assert alone.dtype == in_sequence.dtype == jnp.float32
    scale = np.abs(in_sequence).max()
    np.testing.assert_allclose(alone, in_sequence, rtol=0, atol=ROUNDING * scale)


def test_two_projections_on_one_table_hold_logits_and_no_products():
    """Sums of products did: [entries, tokens, dim] where logits have no dim."""

    def distance(hidden, table):
        one, other = (unembed(x, table, soft_cap=None) for x in (hidden, hidden + 1))
        return jnp.abs(jax.nn.log_softmax(one) - jax.nn.log_softmax(other)).max()

    hidden, table = jnp.ones((16, 64)), jnp.ones((512, 64))
    memory = jax.jit(distance).lower(hidden, table).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 16 * 512 * 4 * 8  # a few arrays of logits
