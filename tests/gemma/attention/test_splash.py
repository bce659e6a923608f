"""Splash attention in Pallas's interpreter, where there is no TPU."""

import functools

import jax.numpy as jnp
import pytest

from gemma.attention import see
from gemma.attention.splash import attend_splash, splash_kernel

interpreted = functools.partial(attend_splash, interpret=True)


def kernel(length, window):
    return splash_kernel(length, heads=1, window=window, soft_cap=None, interpret=True)


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
    sizes = kernel(length, None).kwargs["block_sizes"]
    assert (sizes.block_q, sizes.block_kv_dkv, sizes.block_kv_dq) == (block,) * 3


@pytest.mark.parametrize(("window", "visited"), [(None, 8), (1024, 3), (513, 2)])
def test_kernels_visit_the_blocks_of_a_window(window, visited):
    """Of 8 blocks of 512, a row of the grid has as many as its queries see."""
    made = kernel(4096, window)
    for info in (made.fwd_mask_info, made.dq_mask_info):
        assert info.block_mask.shape[-1] == visited
    assert made.dkv_mask_info.block_mask.shape[-2] == visited
