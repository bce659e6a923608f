"""The chunked loss against the dense one, value and gradients."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma.quantized.array import QuantizedArray
from gemma.quantized.grid import quantize
from trainer.model import trained_table, vocabulary_tiles
from trainer.model.loss import summed_loss, token_losses
from trainer.model.loss_form import LossForm
from trainer.model.loss_terms import LossTerms
from trainer.model.vocabulary_tiles import capped

VOCABULARY, DIM = 37, 8
PLAIN = {}
BOTH = {"z_loss": 0.01, "label_smoothing": 0.1}
ONE = {"chunk_tokens": 10, "piece_tokens": (4, 2)}
SPREAD = {"shards": 2, "chunk_tokens": 6, "piece_tokens": (3,), "table_shards": 37}
RELATIVE = 2e-6  # float32 sums in another order


@pytest.fixture(scope="module")
def problem():
    keys = jax.random.split(jax.random.key(0), 4)
    hidden = jax.random.normal(keys[0], (4, 6, DIM)) * 3
    table = jax.random.normal(keys[1], (VOCABULARY, DIM))
    labels = jax.random.randint(keys[2], (4, 6), 0, VOCABULARY)
    mask = jax.random.bernoulli(keys[3], 0.4, (4, 6))
    return hidden, table, labels, mask


def dense(problem, soft_cap, dtype, z_loss=0.0, label_smoothing=0.0):
    """Return value and gradients for hidden states and table, by hand in NumPy."""
    hidden, table, labels, mask = (np.asarray(x) for x in problem)
    hidden, table = hidden.reshape(-1, DIM).astype(dtype), table.astype(dtype)
    raw = hidden @ table.T
    logits = soft_cap * np.tanh(raw / soft_cap) if soft_cap else raw
    slope = 1 - (logits / soft_cap) ** 2 if soft_cap else 1
    top = logits.max(-1, keepdims=True)
    total = top + np.log(np.exp(logits - top).sum(-1, keepdims=True))
    target = (1 - label_smoothing) * np.eye(VOCABULARY, dtype=dtype)[labels.ravel()]
    target += label_smoothing / VOCABULARY
    losses = (target * (total - logits)).sum(-1) + z_loss * total[:, 0] ** 2
    d_logits = (1 + 2 * z_loss * total) * np.exp(logits - total) - target
    d_logits *= slope * mask.reshape(-1, 1)
    value = (losses * mask.ravel()).sum()
    return value, (d_logits @ table).reshape(*mask.shape, DIM), d_logits.T @ hidden


def form(soft_cap, **changes):
    settings = {"shards": 1, "chunk_tokens": 5, "table_shards": 1} | changes
    return LossForm(soft_cap=soft_cap, **settings)


def chunked(
    hidden, table, labels, mask, soft_cap, *, table_is_trained=True, more=PLAIN, **how
):
    terms = LossTerms(vocabulary_size=table.shape[0], **more)
    return summed_loss(
        hidden,
        table,
        labels,
        mask,
        form=form(soft_cap, **how),
        terms=terms,
        table_is_trained=table_is_trained,
    ).minimised


def distance(a, b):
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def check_equals_dense(problem, soft_cap, got, more=PLAIN):
    """Compare with the dense loss in float64.

    The bound is 1e-6 or twice the dense float32 loss's own distance from it.
    """
    near, exact = (dense(problem, soft_cap, t, **more) for t in ("float32", "float64"))
    for found, small, true in zip(jax.tree.leaves(got), near, exact, strict=False):
        assert distance(found, true) <= max(1e-6, 2 * distance(small, true))


@pytest.mark.parametrize("more", [PLAIN, BOTH], ids=["plain", "both"])
@pytest.mark.parametrize("soft_cap", [None, 4.0])
@pytest.mark.parametrize("how", [ONE, SPREAD], ids=["one", "spread"])
@pytest.mark.parametrize("table_is_trained", [True, False])
def test_value_and_gradients_equal_the_dense_loss(
    problem, soft_cap, how, more, table_is_trained
):
    argnums = (0, 1) if table_is_trained else (0,)
    function = functools.partial(
        chunked, soft_cap=soft_cap, more=more, table_is_trained=table_is_trained, **how
    )
    got = jax.jit(jax.value_and_grad(function, argnums=argnums))(*problem)
    check_equals_dense(problem, soft_cap, got, more)


def test_a_cap_beyond_safe_exponents_shifts_the_logits(problem):
    got = jax.value_and_grad(chunked, argnums=(0, 1))(*problem, 80.0, **ONE)
    check_equals_dense(problem, 80.0, got)


@pytest.mark.parametrize("table_is_trained", [True, False])
def test_the_plain_loss_stands_beside_what_is_minimised(problem, table_is_trained):
    def sums(hidden, more):
        terms = LossTerms(vocabulary_size=VOCABULARY, **more)
        return summed_loss(
            hidden,
            *problem[1:],
            form=form(4.0),
            terms=terms,
            table_is_trained=table_is_trained,
        )

    plain = sums(problem[0], PLAIN)
    assert plain.minimised == plain.plain
    more = sums(problem[0], BOTH)
    assert more.plain == plain.plain
    assert more.minimised > plain.minimised + 1.0
    assert not jax.grad(lambda h: sums(h, BOTH).plain)(problem[0]).any()


def test_smoothing_and_z_loss_of_two_logits_by_hand():
    """Logits ln 3 and 0: Z is ln 4, the mean logit ln 3 / 2, the loss ln 4 - ln 3."""
    hidden = jnp.full((1, 1, 1), math.log(3.0))
    table = jnp.array([[1.0], [0.0]])
    one = jnp.zeros((1, 1), "int32"), jnp.ones((1, 1), bool)
    z, level = math.log(4.0), math.log(3.0) / 2
    more = {"z_loss": 0.5, "label_smoothing": 0.2}
    got = chunked(hidden, table, *one, None, more=more)
    want = z - 0.8 * math.log(3.0) - 0.2 * level + 0.5 * z**2
    assert got == pytest.approx(want, rel=1e-6)


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


@pytest.fixture
def computed(monkeypatch):
    """Positions whose logits a compiled program really computes, one entry a piece."""
    sizes = []

    def counted(raw, soft_cap):
        if raw.ndim == 3:  # [shards, positions, entries of a tile]
            jax.debug.callback(lambda: sizes.append(raw.shape[1]))
        return capped(raw, soft_cap)

    for module in (vocabulary_tiles, trained_table):
        monkeypatch.setattr(module, "capped", counted)
    return sizes


@pytest.mark.parametrize(
    "count, pieces", [(0, []), (3, [2, 2]), (5, [4, 2]), (11, [4, 4, 2, 2])]
)
@pytest.mark.parametrize("passes", [1, 2], ids=["frozen", "trained"])
def test_positions_without_loss_are_not_computed(
    problem, computed, count, pieces, passes
):
    """Pieces of 4 and 2 run for what has loss, wherever it stands, and no others."""
    hidden, table, labels, _ = problem
    mask = np.zeros(24, bool)
    mask[np.random.default_rng(0).permutation(24)[:count]] = True
    how = ONE | {"table_is_trained": passes == 2}
    loss = functools.partial(chunked, soft_cap=4.0, **how)
    program = jax.jit(jax.value_and_grad(loss))
    jax.block_until_ready(program(hidden, table, labels, mask.reshape(4, 6)))
    jax.effects_barrier()
    assert sorted(computed, reverse=True) == sorted(passes * pieces, reverse=True)


@pytest.mark.parametrize("shards, table_shards", [(1, 1), (2, 1), (1, 37)])
def test_token_losses_stand_where_their_tokens_do(problem, shards, table_shards):
    hidden, table, labels, mask = problem
    how = form(4.0, shards=shards, chunk_tokens=6, table_shards=table_shards)
    got = token_losses(hidden, table, labels, mask, form=how)
    logits = 4.0 * jnp.tanh(jnp.einsum("bsd,vd->bsv", hidden, table) / 4.0)
    each = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)
    want = jnp.where(mask, each[..., 0], 0.0)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("table_is_trained", [True, False])
def test_the_logits_of_a_batch_never_exist(problem, table_is_trained):
    """The largest array of the program has a chunk's logits, not the batch's."""
    hidden, table, labels, mask = problem
    how = {"chunk_tokens": 3, "table_is_trained": table_is_trained}
    program = jax.make_jaxpr(
        jax.value_and_grad(
            lambda h, t: chunked(h, t, labels, mask, None, **how), argnums=(0, 1)
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
    how = form(4.0, table_shards=table_shards)
    losses = token_losses(hidden, table, labels, mask, form=how)
    assert abs(losses.sum() - want[0]) <= RELATIVE * abs(want[0])
