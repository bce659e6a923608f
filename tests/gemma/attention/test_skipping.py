"""Blocks that nobody sees are not computed: counted where they would be."""

import jax.numpy as jnp

from gemma.attention import see
from gemma.attention.blocked import _first_blocks


def first_blocks(sight, blocks=4, block=4):
    return _first_blocks(sight, blocks, block).tolist()


def test_a_global_layer_begins_at_the_first_block():
    assert first_blocks(see()) == [0, 0, 0, 0]


def test_a_window_leaves_out_what_lies_before_it():
    """Of 4 places a block: place 8 sees 4 to 8 in a window of 5."""
    assert first_blocks(see(window=5)) == [0, 0, 1, 2]
    assert first_blocks(see(window=6)) == [0, 0, 0, 1]
    assert first_blocks(see(window=1)) == [0, 1, 2, 3]


def test_rows_of_a_packed_sequence_leave_out_the_rows_before():
    ids = jnp.array([[1] * 4 + [2] * 6 + [3] * 6, [1] * 8 + [2] * 8])
    assert first_blocks(see(segment_ids=ids[:1])) == [0, 1, 1, 2]
    assert first_blocks(see(segment_ids=ids)) == [0, 0, 1, 2]
