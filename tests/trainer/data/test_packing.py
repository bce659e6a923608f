"""Packs by first fit and the arrays of a batch, by hand."""

import numpy as np
import pytest

from trainer.data.encode import Piece
from trainer.data.packing import bucket_length, build_batch, first_fit


def piece(ids, learned, row=0):
    mask = np.isin(np.arange(len(ids)), learned)
    return Piece(np.array(ids, np.int32), mask, row)


def test_each_item_goes_into_the_first_pack_with_room():
    assert first_fit([5, 4, 3, 6, 1, 2, 8, 1], 8) == [[0, 2], [1, 4, 5, 7], [3], [6]]


def test_nothing_packs_into_nothing():
    assert first_fit([], 8) == []


def test_an_item_longer_than_a_pack_is_refused():
    with pytest.raises(ValueError, match="item 1 has length 9, a pack holds 8"):
        first_fit([1, 9], 8)


def test_every_item_is_in_one_pack_and_none_overflows():
    lengths = np.random.default_rng(0).integers(1, 257, 2000).tolist()
    packs = first_fit(lengths, 256)
    assert sorted(item for pack in packs for item in pack) == list(range(2000))
    assert max(sum(lengths[item] for item in pack) for pack in packs) <= 256


def test_a_batch_of_two_rows_and_padding_is_literally_this():
    sequence = [piece([2, 11, 12, 6], [2, 3]), piece([2, 21, 6], [2])]
    batch = build_batch([sequence, []], 7, pad_token_id=9)
    assert {name: array[0].tolist() for name, array in batch.items()} == {
        "token_ids": [2, 11, 12, 2, 21, 9, 9],
        "labels": [11, 12, 6, 21, 6, 9, 9],
        "loss_mask": [False, True, True, False, True, False, False],
        "segment_ids": [1, 1, 1, 2, 2, 0, 0],
        "positions": [0, 1, 2, 0, 1, 0, 0],
    }
    assert batch["token_ids"][1].tolist() == [9] * 7
    assert not batch["loss_mask"][1].any() and not batch["segment_ids"][1].any()
    types = {name: array.dtype for name, array in batch.items()}
    assert types.pop("loss_mask") == np.dtype(bool)
    assert set(types.values()) == {np.dtype(np.int32)}


@pytest.mark.parametrize(
    ("longest", "bucket"), [(1, 32), (32, 32), (33, 64), (65, 128), (129, 200)]
)
def test_buckets_are_powers_of_two_up_to_the_sequence(longest, bucket):
    assert bucket_length(longest, 200) == bucket
