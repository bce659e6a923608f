"""The chunked loss against the dense one, value and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma.quantized.array import QuantizedArray
from gemma.quantized.grid import quantize
from trainer.model.loss import summed_loss, token_losses

VOCABULARY, DIM = 37, 8
RELATIVE = 2e-6  # float32 sums in another order


@pytest.fixture(scope="module")
def problem():
    keys = jax.random.split(jax.random.key(0), 4)
    hidden = jax.random.normal(keys[0], (4, 6, DIM)) * 3
    table = jax.random.normal(keys[1], (VOCABULARY, DIM))
    labels = jax.random.randint(keys[2], (4, 6), 0, VOCABULARY)
    mask = jax.random.bernoulli(keys[3], 0.4, (4, 6))
    return hidden, table, labels, mask


def dense(hidden, table, labels, mask, soft_cap):
    logits = jnp.einsum("bsd,vd->bsv", hidden, table)
    if soft_cap:
        logits = soft_cap * jnp.tanh(logits / soft_cap)
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)
    return -(picked[..., 0] * mask).sum()


def chunked(hidden, table, labels, mask, soft_cap, **changes):
    settings = {
        "shards": 1,
        "chunk_tokens": 5,
        "table_shards": 1,
        "table_is_trained": True,
    } | changes
    return summed_loss(hidden, table, labels, mask, soft_cap=soft_cap, **settings)


def distance(a, b):
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


@pytest.mark.parametrize("soft_cap", [None, 4.0])
@pytest.mark.parametrize("shards, chunk_tokens", [(1, 5), (1, 100), (2, 6), (4, 4)])
def test_value_and_gradients_equal_the_dense_loss(
    problem, soft_cap, shards, chunk_tokens
):
    hidden, table, labels, mask = problem
    want = jax.value_and_grad(dense, argnums=(0, 1))(*problem, soft_cap)
    got = jax.value_and_grad(chunked, argnums=(0, 1))(
        *problem, soft_cap, shards=shards, chunk_tokens=chunk_tokens
    )
    assert abs(got[0] - want[0]) <= RELATIVE * abs(want[0])
    assert distance(got[1][0], want[1][0]) <= RELATIVE
    assert distance(got[1][1], want[1][1]) <= RELATIVE


@pytest.mark.parametrize("soft_cap", [None, 4.0])
@pytest.mark.parametrize("table_shards", [1, 37])
def test_a_frozen_table_gives_the_same_loss_and_gradient(
    problem, soft_cap, table_shards
):
    want = jax.value_and_grad(dense)(*problem, soft_cap)
    frozen = {"table_is_trained": False, "table_shards": table_shards}
    got = jax.value_and_grad(chunked)(*problem, soft_cap, **frozen)
    assert abs(got[0] - want[0]) <= RELATIVE * abs(want[0])
    assert distance(got[1], want[1]) <= RELATIVE


def test_positions_without_loss_get_no_gradient(problem):
    gradient = jax.grad(chunked)(*problem, 4.0)
    assert not np.asarray(gradient)[~np.asarray(problem[3])].any()


def test_a_frozen_table_gets_no_gradient(problem):
    frozen = jax.grad(chunked, argnums=1)(*problem, None, table_is_trained=False)
    assert not frozen.any()


def test_nothing_to_learn_is_a_loss_of_zero(problem):
    hidden, table, labels, mask = problem
    nothing = jnp.zeros_like(mask)
    loss, gradient = jax.value_and_grad(chunked)(hidden, table, labels, nothing, 30.0)
    assert loss == 0.0
    assert not gradient.any()


@pytest.mark.parametrize("shards, table_shards", [(1, 1), (2, 1), (1, 37)])
def test_token_losses_stand_where_their_tokens_do(problem, shards, table_shards):
    hidden, table, labels, mask = problem
    form = {"shards": shards, "chunk_tokens": 6, "table_shards": table_shards}
    got = token_losses(hidden, table, labels, mask, soft_cap=4.0, **form)
    logits = 4.0 * jnp.tanh(jnp.einsum("bsd,vd->bsv", hidden, table) / 4.0)
    each = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)
    want = jnp.where(mask, each[..., 0], 0.0)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("table_is_trained", [True, False])
def test_the_logits_of_a_batch_never_exist(problem, table_is_trained):
    """The largest array of the program has a chunk's logits, not the batch's."""
    hidden, table, labels, mask = problem
    form = {"chunk_tokens": 3, "table_is_trained": table_is_trained}
    program = jax.make_jaxpr(
        jax.value_and_grad(
            lambda h, t: chunked(h, t, labels, mask, None, **form), argnums=(0, 1)
        )
    )(hidden, table)
    sizes = [
        variable.aval.size
        for jaxpr in _all(program.jaxpr)
        for equation in jaxpr.eqns
        for variable in equation.outvars
    ]
    assert table.size <= max(sizes) < labels.size * VOCABULARY


def _all(jaxpr):
    yield jaxpr
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _all(inner)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
@pytest.mark.parametrize("table_shards", [1, 4])
def test_a_quantized_table_counts_as_the_floats_it_stands_for(
    problem, quantization, table_shards
):
    hidden, _, labels, mask = problem
    floats = np.random.default_rng(0).normal(size=(40, DIM)).astype("float32")
    parts = map(jnp.asarray, quantize(floats, quantization, -1))
    table = QuantizedArray(*parts, quantization, -1)
    settings = {"table_shards": table_shards, "table_is_trained": False}
    got, want = (
        jax.value_and_grad(chunked)(hidden, each, labels, mask, 4.0, **settings)
        for each in (table, table.astype("float32"))
    )
    assert abs(got[0] - want[0]) <= RELATIVE * abs(want[0])
    assert distance(got[1], want[1]) <= RELATIVE
    losses = token_losses(
        hidden,
        table,
        labels,
        mask,
        soft_cap=4.0,
        shards=1,
        chunk_tokens=5,
        table_shards=table_shards,
    )
    assert abs(losses.sum() - want[0]) <= RELATIVE * abs(want[0])
