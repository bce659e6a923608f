"""Quantized weights inside JAX: rows, tiles, products and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma.layers.token_embedding import unembed
from gemma.quantized.array import QuantizedArray, frozen_einsum, split_rows
from gemma.quantized.grid import quantize

ORDER = 1e-5  # the same products in another order of summation


def quantized(shape, quantization="int4", axis=-2, seed=0):
    weight = np.random.default_rng(seed).normal(size=shape).astype("float32")
    parts = map(jnp.asarray, quantize(weight, quantization, axis))
    return QuantizedArray(*parts, quantization, axis)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_rows_and_tiles_are_those_of_the_whole_table(quantization):
    table = quantized((12, 64), quantization, axis=-1)
    whole = table.astype("float32")
    assert table.shape == whole.shape == (12, 64)
    ids = jnp.asarray([[3, 0], [11, 3]])
    np.testing.assert_array_equal(table[ids].astype("float32"), whole[ids])
    tiles = split_rows(table, 3, 4)
    np.testing.assert_array_equal(tiles[1].astype("float32"), whole[4:8])


def test_it_passes_through_jit_and_scan_as_an_array():
    stack = quantized((3, 64, 8))
    x = jnp.ones((2, 64))

    @jax.jit
    def run(x, stack):
        def body(x, kernel):
            return frozen_einsum("bx,xy->by", x, kernel) @ jnp.ones((8, 64)), None

        return jax.lax.scan(body, x, stack)[0]

    want = x
    for kernel in stack.astype("float32"):
        want = (want @ kernel) @ jnp.ones((8, 64))
    np.testing.assert_allclose(run(x, stack), want, rtol=ORDER)


@pytest.mark.parametrize(
    "equation, inputs, kernel",
    [
        ("btd,ndh->btnh", (2, 3, 64), (4, 64, 8)),
        ("btnh,nhd->btd", (2, 3, 4, 32), (4, 32, 16)),
        ("btx,xy->bty", (2, 3, 64), (64, 10)),
    ],
)
def test_inputs_get_the_gradient_of_the_float_product(equation, inputs, kernel):
    kernel = quantized(kernel)
    x = jax.random.normal(jax.random.key(0), inputs)

    def ours(x):
        return jnp.sin(frozen_einsum(equation, x, kernel)).sum()

    def plain(x):
        return jnp.sin(jnp.einsum(equation, x, kernel.astype("float32"))).sum()

    np.testing.assert_allclose(jax.grad(ours)(x), jax.grad(plain)(x), atol=ORDER)


def test_the_floats_of_all_layers_never_stand_at_once():
    layers, dim = 16, 256
    stack = quantized((layers, dim, dim))

    def loss(x, stack, product):
        def body(x, kernel):
            return jnp.tanh(product("bx,xy->by", x, kernel)), None

        return jax.lax.scan(body, x, stack)[0].sum()

    def plain(equation, x, kernel):
        return jnp.einsum(equation, x, kernel.astype(x.dtype))

    def temporary_bytes(product):
        step = jax.jit(jax.grad(lambda x, s: loss(x, s, product)))
        compiled = step.lower(jnp.ones((4, dim)), stack).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    whole = layers * dim * dim * 4
    assert temporary_bytes(frozen_einsum) < whole / 3
    assert temporary_bytes(plain) > whole  # what the product is there to avoid


@pytest.mark.parametrize("entries", [12, 4096, 4099])  # 4099: a prime, one tile
def test_logits_of_tiles_are_those_of_the_whole_table(entries):
    table = quantized((entries, 64), axis=-1)
    hidden = jax.random.normal(jax.random.key(1), (2, 3, 64))
    want = jnp.tanh(hidden @ table.astype("float32").T / 30.0) * 30.0
    ours = unembed(hidden, table, soft_cap=30.0)
    np.testing.assert_allclose(ours, want, atol=ORDER * 10)  # logits reach 30
