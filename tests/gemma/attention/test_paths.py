"""Every path gives the reference's mix and gradients, in every situation."""

import functools

import jax
import jax.numpy as jnp
import pytest

from gemma.attention import see
from gemma.attention.blocked import attend_blocked, best_block
from gemma.attention.cudnn import attend_cudnn
from gemma.attention.reference import attend_reference
from gemma.attention.whole import attend_whole

BFLOAT16 = 2e-2  # of the largest number: 8 bits of mantissa, sums in float32
BLOCK = 16


def test_whole_scores_equal_the_reference(
    problem, sights, situation, same_as_reference
):
    (name, soft_cap), given = situation, problem(20)
    same_as_reference(attend_whole, given, sights(given)[name], soft_cap)


def test_blocks_equal_the_reference(problem, sights, situation, same_as_reference):
    """71 places are padded to six blocks of 12."""
    (name, soft_cap), given = situation, problem(71)
    blocked = functools.partial(attend_blocked, largest_block=BLOCK)
    same_as_reference(blocked, given, sights(given)[name], soft_cap)


@pytest.mark.parametrize("window", [None, 5])
def test_cudnns_arguments_mean_what_the_reference_means(
    problem, window, same_as_reference
):
    path = functools.partial(attend_cudnn, implementation="xla")
    same_as_reference(path, problem(20), see(window))


@pytest.mark.parametrize("path", [attend_whole, attend_blocked])
def test_bfloat16_keeps_its_dtype_and_the_float32_numbers(problem, path):
    path = (
        functools.partial(path, largest_block=BLOCK) if path is attend_blocked else path
    )
    given = problem(40)
    sight = see(20, given.segments(7))
    short = [x.astype("bfloat16") for x in given.inputs]
    got = given.run(path, sight, 5.0, inputs=short)
    assert {x.dtype.name for x in got} == {"bfloat16"}
    long = [x.astype("float32") for x in short]
    want = given.run(attend_reference, sight, 5.0, inputs=long)
    for a, b in zip(got, want, strict=True):
        assert jnp.abs(a.astype("float32") - b).max() <= BFLOAT16 * jnp.abs(b).max()


def test_segments_in_no_order_are_kept_apart(problem, same_as_reference):
    """Blocks are left out by their smallest and largest segment, which is no proof."""
    given = problem(64)
    ids = jnp.tile(jnp.array([3, 0, 2, 0, 1, 3, 3, 0]), (2, 8))
    blocked = functools.partial(attend_blocked, largest_block=BLOCK)
    same_as_reference(blocked, given, see(None, ids))


def blind(path, problem):
    """Return mix and gradients where the queries of places 20 to 39 see nothing."""
    given = problem(40)
    ids = given.segments(20)
    sight = see(segment_ids=ids, padding_mask=jnp.arange(40)[None] < 20 + 0 * ids)
    return given.run(path, sight, 2.0)


@pytest.mark.parametrize(
    "path",
    [
        attend_reference,
        attend_whole,
        functools.partial(attend_blocked, largest_block=BLOCK),
    ],
    ids=["reference", "whole", "blocked"],
)
def test_a_query_that_sees_nothing_gets_zeros_and_moves_nothing(path, problem):
    for part in blind(path, problem):
        assert jnp.isfinite(part).all()
        assert (part[:, 20:] == 0).all()
        assert (part[:, :20] != 0).any()


@pytest.mark.parametrize(
    ("length", "block"), [(256, 128), (4096, 128), (300, 80), (640, 128), (129, 80)]
)
def test_blocks_cover_a_length_with_little_padding(length, block):
    assert best_block(length, 128) == block


def test_memory_of_blocks_grows_with_the_tokens_not_with_their_square():
    def gradient(x):
        def loss(x):
            return attend_blocked(x, x, x, see(512), soft_cap=5.0).sum()

        return jax.grad(loss)(x)

    def temporary_bytes(length):
        shape = jax.ShapeDtypeStruct((1, length, 1, 16), "float32")
        compiled = jax.jit(gradient).lower(shape).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(8192) < 2.5 * temporary_bytes(4096)
    assert temporary_bytes(8192) < 4 * 8192**2 / 20  # of the scores
