"""The order of rows: a permutation, the same for ever, different every epoch."""

import numpy as np
import pytest

from trainer.data.order import Position, shuffled

PINNED_12 = [0, 3, 6, 10, 11, 7, 5, 9, 1, 4, 2, 8]
PINNED_LARGE = [1499992991, 7674570476]


def order(size, seed=0, epoch=0):
    return shuffled(np.arange(size), size=size, seed=seed, epoch=epoch)


@pytest.mark.parametrize("size", [*range(1, 70), 255, 256, 257, 1003, 65537])
def test_every_row_has_one_place(size):
    assert sorted(order(size, seed=3, epoch=2).tolist()) == list(range(size))


def test_the_order_is_the_same_in_every_version():
    assert order(12).tolist() == PINNED_12
    assert shuffled(np.array([0, 10**9]), size=10**10, seed=7, epoch=3).tolist() == (
        PINNED_LARGE
    )


def test_a_place_needs_no_other_place():
    whole = order(1000, seed=5, epoch=1)
    part = shuffled(np.array([999, 4, 500]), size=1000, seed=5, epoch=1)
    assert part.tolist() == whole[[999, 4, 500]].tolist()


def test_seeds_and_epochs_differ():
    orders = {tuple(order(50, seed, epoch)) for seed in range(8) for epoch in range(8)}
    assert len(orders) == 64
    assert order(50, seed=-1).tolist() != order(50, seed=1).tolist()


def test_places_and_rows_are_unrelated():
    size, epochs = 64, 400
    firsts = [int(order(size, epoch=epoch)[0]) for epoch in range(epochs)]
    assert len(set(firsts)) > 0.95 * size
    pairs = np.diff([order(size, epoch=epoch) for epoch in range(epochs)], axis=1)
    neighbours = np.mean(pairs == 1)
    assert abs(neighbours - 1 / size) < 0.004  # 25,200 pairs, 5 standard deviations


def test_a_position_is_two_numbers():
    position = Position.at(epoch=3, window=5, offset=7)
    assert (position.epoch, position.window, position.offset) == (3, 5, 7)
    assert Position(position.epoch, position.index) == position
    assert Position() == Position.at(epoch=0, window=0, offset=0)
    assert Position() < Position.at(epoch=0, window=1, offset=0) < position
