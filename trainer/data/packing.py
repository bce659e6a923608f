"""Pieces of rows into sequences, and sequences into the arrays of a batch.

Turns lengths into packs by first fit, and packs into token ids, labels, masks, segment
ids and positions. It refuses to know files, vocabulary and order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.data.encode import Piece

MIN_BUCKET = 32

Batch = dict[str, np.ndarray]
Sequences = Sequence[Sequence[Piece]]


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return packs of item numbers: each goes into the first pack with room for it.

    Raises:
        ValueError: An item is longer than a pack.
    """
    packs: list[list[int]] = []
    room = np.zeros(len(lengths), np.int64)
    for item, length in enumerate(lengths):
        if length > capacity:
            raise ValueError(
                f"item {item} has length {length}, a pack holds {capacity}"
            )
        fits = room[: len(packs)] >= length
        pack = int(fits.argmax()) if len(packs) else 0
        if not len(packs) or not fits[pack]:
            pack = len(packs)
            packs.append([])
            room[pack] = capacity
        packs[pack].append(item)
        room[pack] -= length
    return packs


def buckets(sequence_length: int) -> list[int]:
    """Return the lengths that batches may have: powers of two from 32, and all."""
    found = [MIN_BUCKET]
    while found[-1] < sequence_length:
        found.append(2 * found[-1])
    return [*found[:-1], sequence_length]


def bucket_length(longest: int, sequence_length: int) -> int:
    """Return the least of the buckets that holds `longest`, or all there is."""
    fitting = (b for b in buckets(sequence_length) if b >= longest)
    return next(fitting, sequence_length)


def build_batch(sequences: Sequences, length: int, *, pad_token_id: int) -> Batch:
    """Return the arrays of sequences, [sequence, length] each.

    A piece of n ids fills n - 1 positions: inputs are all but its last id, labels all
    but its first. What is left of a sequence is padding of segment 0.
    """
    shape = (len(sequences), length)
    batch = {
        "token_ids": np.full(shape, pad_token_id, np.int32),
        "labels": np.full(shape, pad_token_id, np.int32),
        "loss_mask": np.zeros(shape, bool),
        "segment_ids": np.zeros(shape, np.int32),
        "positions": np.zeros(shape, np.int32),
    }
    places = np.arange(length, dtype=np.int32)
    for row, sequence in enumerate(sequences):
        start = 0
        for segment, piece in enumerate(sequence, start=1):
            end = start + piece.length
            batch["token_ids"][row, start:end] = piece.ids[:-1]
            batch["labels"][row, start:end] = piece.ids[1:]
            batch["loss_mask"][row, start:end] = piece.loss_mask[1:]
            batch["segment_ids"][row, start:end] = segment
            batch["positions"][row, start:end] = places[: piece.length]
            start = end
    return batch
