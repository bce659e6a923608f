"""What a query sees, written out."""

import jax.numpy as jnp
import pytest

from gemma.attention import see


def mask(sight, length):
    return sight.mask(0, 0, queries=length, keys=length).tolist()


def test_a_window_counts_the_token_itself():
    assert mask(see(window=2), 4) == [
        [
            [True, False, False, False],
            [True, True, False, False],
            [False, True, True, False],
            [False, False, True, True],
        ]
    ]


def test_segments_and_padding_hide_keys():
    sight = see(segment_ids=jnp.array([[1, 1, 2]]), padding_mask=jnp.array([[1, 0, 1]]))
    assert mask(sight, 3) == [
        [[True, False, False], [True, False, False], [False, False, True]]
    ]


def test_padding_alone_leaves_one_row():
    sight = see(padding_mask=jnp.array([[False, True, True]]))
    assert mask(sight, 3) == [
        [[False, False, False], [False, True, False], [False, True, True]]
    ]


@pytest.mark.parametrize("window", [None, 3])
def test_a_range_is_the_part_of_the_whole(window):
    sight = see(window=window, segment_ids=jnp.array([[5] * 4 + [6] * 8]))
    whole = sight.mask(0, 0, queries=12, keys=12)
    part = sight.mask(6, 2, queries=4, keys=5)
    assert (part == whole[:, 6:10, 2:7]).all()
