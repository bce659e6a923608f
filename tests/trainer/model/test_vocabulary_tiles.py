"""Sums over tiles of the vocabulary against the dense softmax."""

import jax
import jax.numpy as jnp
import pytest

from gemma.layers.token_embedding import tile_size
from trainer.model import vocabulary_tiles
from trainer.model.vocabulary_tiles import normaliser, normaliser_and_gradient

RELATIVE = 3e-6  # float32 sums in another order


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(vocabulary_tiles, "TILE", 16)


@pytest.fixture(scope="module")
def hidden():
    return 3 * jax.random.normal(jax.random.key(0), (2, 5, 8))


def table(entries):
    return jax.random.normal(jax.random.key(1), (entries, 8))


def dense(hidden, table, soft_cap):
    logits = jnp.einsum("std,vd->stv", hidden, table)
    if soft_cap:
        logits = soft_cap * jnp.tanh(logits / soft_cap)
    return jax.nn.logsumexp(logits, axis=-1)


@pytest.mark.parametrize("soft_cap", [None, 4.0, 80.0])
@pytest.mark.parametrize("entries, table_shards", [(32, 1), (32, 4), (37, 1), (5, 1)])
def test_normaliser_and_gradient_equal_the_dense_ones(
    hidden, soft_cap, entries, table_shards
):
    weights = table(entries)
    want = dense(hidden, weights, soft_cap)
    slope = jax.grad(lambda h: dense(h, weights, soft_cap).sum())(hidden)
    settings = {"soft_cap": soft_cap, "table_shards": table_shards}
    got, gradient = normaliser_and_gradient(hidden, weights, **settings)
    assert jnp.allclose(got, want, rtol=RELATIVE)
    assert jnp.abs(gradient - slope).max() <= RELATIVE * jnp.abs(slope).max()
    assert jnp.allclose(normaliser(hidden, weights, **settings), want, rtol=RELATIVE)


def test_logits_far_beyond_the_exponents_of_float32_stay_finite(hidden):
    got, gradient = normaliser_and_gradient(
        100 * hidden, table(32), soft_cap=None, table_shards=1
    )
    assert jnp.isfinite(got).all()
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("entries, size", [(5, 5), (24, 12), (48, 16), (37, 37)])
def test_tiles_divide_the_vocabulary_or_are_all_of_it(entries, size):
    assert tile_size(entries, 16) == size
