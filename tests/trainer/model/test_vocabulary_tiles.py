"""Sums over tiles of the vocabulary against the dense softmax."""

import jax
import jax.numpy as jnp
import pytest

from gemma.layers.token_embedding import tile_size
from trainer.model import vocabulary_tiles
from trainer.model.vocabulary_tiles import Pieces, sums_over_vocabulary

RELATIVE = 3e-6  # float32 sums in another order
WHOLE = Pieces((5,), 5)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(vocabulary_tiles, "TILE", 16)


@pytest.fixture(scope="module")
def hidden():
    return 3 * jax.random.normal(jax.random.key(0), (2, 5, 8))


def table(entries):
    return jax.random.normal(jax.random.key(1), (entries, 8))


def logits(hidden, table, soft_cap):
    raw = jnp.einsum("std,vd->stv", hidden, table)
    return soft_cap * jnp.tanh(raw / soft_cap) if soft_cap else raw


def dense(hidden, table, soft_cap):
    return jax.nn.logsumexp(logits(hidden, table, soft_cap), axis=-1)


def level(hidden, table, soft_cap):
    return logits(hidden, table, soft_cap).mean(-1)


def close(got, want):
    return jnp.abs(got - want).max() <= RELATIVE * jnp.abs(want).max()


@pytest.mark.parametrize("soft_cap", [None, 4.0, 80.0])
@pytest.mark.parametrize("entries, table_shards", [(32, 1), (32, 4), (37, 1), (5, 1)])
def test_sums_and_their_gradients_equal_the_dense_ones(
    hidden, soft_cap, entries, table_shards
):
    weights = table(entries)
    form = {"soft_cap": soft_cap, "table_shards": table_shards}
    got = sums_over_vocabulary(
        hidden, weights, **form, pieces=WHOLE, with_gradient=True, with_level=True
    )
    for function, value, gradient in (
        (dense, got.normaliser, got.gradient),
        (level, got.level, got.level_gradient),
    ):
        slope = jax.grad(lambda h, f=function: f(h, weights, soft_cap).sum())(hidden)
        assert close(value, function(hidden, weights, soft_cap))
        assert close(gradient, slope)


def test_what_is_not_asked_for_is_not_there(hidden):
    form = {"soft_cap": None, "table_shards": 1, "pieces": WHOLE}
    got = sums_over_vocabulary(hidden, table(32), **form, with_gradient=False)
    assert close(got.normaliser, dense(hidden, table(32), None))
    assert got.gradient is got.level is got.level_gradient is None


@pytest.mark.parametrize("soft_cap", [None, 4.0])
@pytest.mark.parametrize("table_shards", [1, 4])
def test_pieces_that_count_equal_the_whole(soft_cap, table_shards):
    hidden = jax.random.normal(jax.random.key(2), (2, 12, 8))
    form = {"soft_cap": soft_cap, "table_shards": table_shards, "with_gradient": True}
    some, whole = Pieces((4, 2), 7), Pieces((12,), 12)
    got = sums_over_vocabulary(hidden, table(32), pieces=some, **form)
    want = sums_over_vocabulary(hidden, table(32), pieces=whole, **form)
    assert close(got.normaliser[:, :7], want.normaliser[:, :7])
    assert close(got.gradient[:, :7], want.gradient[:, :7])


def test_logits_far_beyond_the_exponents_of_float32_stay_finite(hidden):
    got = sums_over_vocabulary(
        100 * hidden,
        table(32),
        soft_cap=None,
        table_shards=1,
        pieces=WHOLE,
        with_gradient=True,
    )
    assert jnp.isfinite(got.normaliser).all()
    assert jnp.isfinite(got.gradient).all()


@pytest.mark.parametrize("entries, size", [(5, 5), (24, 12), (48, 16), (37, 37)])
def test_tiles_divide_the_vocabulary_or_are_all_of_it(entries, size):
    assert tile_size(entries, 16) == size
