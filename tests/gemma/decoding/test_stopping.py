"""Stop sequences, in the compiled loop and on finished rows."""

import jax.numpy as jnp

from gemma.decoding.stopping import ends_here, stop_table, until_stop

STOPS = stop_table([7], [[1, 2, 3], [2, 9]])


def test_tokens_and_sequences_make_one_table():
    assert stop_table([7, 7], [[7], [1, 2]]) == ((7,), (1, 2))


def test_rows_end_where_a_sequence_is_whole():
    tokens = jnp.array([[5, 1, 2, 3], [5, 1, 2, 4], [4, 4, 2, 9], [4, 4, 4, 7]])
    assert ends_here(tokens, jnp.array(3), STOPS).tolist() == [True, False, True, True]
    assert not ends_here(tokens, jnp.array(2), STOPS).any()


def test_a_row_shorter_than_a_sequence_does_not_end():
    """At step 1 a slice of three tokens would reach into what is not there yet."""
    tokens = jnp.array([[1, 2, 3, 4]])
    assert not ends_here(tokens, jnp.array(1), stop_table([], [[1, 2, 3]])).any()


def test_a_sequence_longer_than_all_places_never_ends_a_row():
    tokens = jnp.array([[1, 2]])
    assert not ends_here(tokens, jnp.array(1), stop_table([], [[1, 2, 3]])).any()


def test_a_finished_row_is_cut_before_what_ends_it_first():
    assert until_stop([5, 2, 9, 7], STOPS) == [5]
    assert until_stop([5, 1, 2, 3], STOPS) == [5]
    assert until_stop([7, 5], STOPS) == []
    assert until_stop([5, 6, -1, -1], STOPS) == [5, 6]
    assert until_stop([5, 6], STOPS) == [5, 6]


def test_the_longest_of_two_that_end_together_is_cut():
    assert until_stop([5, 1, 2], stop_table([2], [[1, 2]])) == [5]
