"""Splash attention in Pallas's interpreter, where there is no TPU."""

import functools

import jax.numpy as jnp
import pytest

from gemma.attention import see
from gemma.attention.splash import attend_splash

interpreted = functools.partial(attend_splash, interpret=True)


def test_splash_equals_the_reference(problem, sights, situation, same_as_reference):
    """160 places are padded to two blocks of 128."""
    (name, soft_cap), given = situation, problem(160, batch=2, heads=2, kv_heads=1)
    same_as_reference(interpreted, given, sights(given)[name], soft_cap)


def test_a_query_that_sees_nothing_gets_zeros_and_moves_nothing(problem):
    given = problem(128, batch=1, heads=1, kv_heads=1)
    ids = given.segments(20)
    padding = jnp.arange(128)[None] < 20
    for part in given.run(interpreted, see(None, ids, padding), 2.0):
        assert jnp.isfinite(part).all()
        assert (part[:, 20:] == 0).all()
        assert (part[:, :20] != 0).any()


@pytest.mark.parametrize(("length", "block"), [(4096, 512), (640, 128), (768, 384)])
def test_blocks_divide_the_length(length, block):
    from gemma.attention.splash import _block_sizes

    sizes = _block_sizes(length)
    assert (sizes.block_q, sizes.block_kv_dkv, sizes.block_kv_dq) == (block,) * 3
