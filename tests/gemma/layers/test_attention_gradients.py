"""Attention's own backward pass against JAX's of the plain formula."""

import jax
import jax.numpy as jnp
import pytest

from gemma.layers.dot_product import MASKED, attend, visible_keys

RELATIVE = 3e-6  # float32 sums in another order


@pytest.fixture(scope="module")
def problem():
    keys = jax.random.split(jax.random.key(0), 4)
    query = jax.random.normal(keys[0], (2, 9, 6, 4))
    key = jax.random.normal(keys[1], (2, 9, 3, 4))
    value = jax.random.normal(keys[2], (2, 9, 3, 4))
    return query, key, value, jax.random.normal(keys[3], query.shape)


def plain(query, key, value, visible, soft_cap):
    key, value = (jnp.repeat(x, 2, axis=2) for x in (key, value))
    scores = jnp.einsum("btnh,bsnh->bnts", query, key)
    if soft_cap:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    scores = jnp.where(visible[:, None], scores, MASKED)
    return jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(scores), value)


@pytest.mark.parametrize("soft_cap", [None, 2.0])
@pytest.mark.parametrize("packed", [False, True])
def test_mix_and_gradients_equal_those_of_the_plain_formula(problem, soft_cap, packed):
    *inputs, upstream = problem
    index = jnp.arange(9)[None]
    segments = jnp.array([[1] * 4 + [2] * 5, [1] * 8 + [0]]) if packed else None
    visible = visible_keys(
        index, index, window=3, query_segments=segments, key_segments=segments
    )

    def weighed(function):
        return lambda *x: (function(*x) * upstream).sum()

    def ours(q, k, v):
        return attend(q, k, v, visible, soft_cap=soft_cap)

    want = jax.grad(weighed(lambda *x: plain(*x, visible, soft_cap)), (0, 1, 2))(
        *inputs
    )
    got = jax.grad(weighed(ours), (0, 1, 2))(*inputs)
    mixed = plain(*inputs, visible, soft_cap)
    for a, b in zip((ours(*inputs), *got), (mixed, *want), strict=True):
        assert jnp.abs(a - b).max() <= RELATIVE * jnp.abs(b).max()


def test_a_query_that_sees_nothing_gets_zeros_and_moves_nothing(problem):
    *inputs, upstream = problem
    visible = jnp.tril(jnp.ones((1, 9, 9), bool)).at[:, 4].set(False)

    def weighed(q, k, v):
        return (attend(q, k, v, visible, soft_cap=2.0) * upstream).sum()

    def others(q, k, v):
        rest = visible.at[:, 4].set(True)
        mixed = attend(q, k, v, rest, soft_cap=2.0)
        return (mixed * upstream.at[:, 4].set(0.0)).sum()

    assert (attend(*inputs, visible, soft_cap=2.0)[:, 4] == 0).all()
    got, want = (jax.grad(f, (0, 1, 2))(*inputs) for f in (weighed, others))
    for a, b in zip(got, want, strict=True):
        assert jnp.abs(a - b).max() <= RELATIVE * jnp.abs(b).max()
