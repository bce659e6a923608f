"""Which lengths the batches of a run will have, known before the first one is built.

Turns the order of rows, which is arithmetic, and the length of each row, which is
measured once, into the set of lengths that are still to come. It refuses to know what
is compiled for them.
"""

from __future__ import annotations

import itertools

import numpy as np

from trainer.data.batches import TrainingStream
from trainer.data.order import Position
from trainer.data.packing import buckets
from trainer.data.sharing import Share, encode_rows


def lengths_to_come(
    stream: TrainingStream,
    start: Position | None,
    *,
    num_steps: int,
    share: Share | None,
) -> list[int]:
    """Return the lengths of the next batches, each once, from the shortest.

    Args:
        stream: The batches.
        start: Where the first of them begins; None is the beginning.
        num_steps: How many of them there are.
        share: How processes share the measuring of rows; None measures all of them
            here. Every process has to call alike.
    """
    if stream.pack:
        return [stream.encoder.sequence_length]
    start = start or Position()
    per_epoch, size = stream.windows_per_epoch, stream.global_batch_size
    measured = _Measured(stream, share)
    first = start.epoch * per_epoch + start.window
    found: set[int] = set()
    pending, left = b"", num_steps
    for number in itertools.count(first):
        pieces = measured.window(number)
        pending += pieces[start.offset :] if number == first else pieces
        count = min(len(pending) // size, left)
        batches = np.frombuffer(pending, np.uint8, count * size).reshape(count, size)
        found |= set(batches.max(axis=1, initial=0).tolist())
        pending, left = pending[count * size :], left - count
        has_all = len(found) == len(measured.buckets)
        has_all |= measured.unknown == 0 and found == measured.present
        if left == 0 or has_all:
            break
    return [measured.buckets[place] for place in sorted(found)]


class _Measured:
    """The bucket of every piece of the rows seen so far, as a byte each."""

    def __init__(self, stream: TrainingStream, share: Share | None) -> None:
        self.buckets = buckets(stream.encoder.sequence_length)
        self._stream, self._share = stream, share
        self.present: set[int] = set()
        self.unknown = len(stream.rows)
        self._of_row: list[bytes | None] = [None] * len(stream.rows)

    def window(self, number: int) -> bytes:
        """Return the pieces of a window in order, counted over all epochs."""
        epoch, window = divmod(number, self._stream.windows_per_epoch)
        rows = self._stream.window_rows(epoch, window).tolist()
        unknown = [row for row in rows if self._of_row[row] is None]
        if unknown:
            self._measure(np.array(unknown), number)
        return b"".join(self._of_row[row] or b"" for row in rows)

    def _measure(self, unknown: np.ndarray, number: int) -> None:
        if self._share is None:
            found = self._encode(unknown)
        else:
            index, count = self._share.index, self._share.count
            mine = self._encode(unknown[index::count])
            told = self._share.tell(number, [pieces.hex() for pieces in mine])
            found = [b""] * len(unknown)
            for process, texts in enumerate(told):
                found[process::count] = map(bytes.fromhex, texts)
        for row, pieces in zip(unknown.tolist(), found, strict=True):
            self._of_row[row] = pieces
            self.present |= set(pieces)
        self.unknown -= len(unknown)

    def _encode(self, numbers: np.ndarray) -> list[bytes]:
        found = [b""] * len(numbers)
        for piece in encode_rows(self._stream.rows, numbers, self._stream.encoder):
            place = np.searchsorted(self.buckets, piece.length)
            found[piece.row] += bytes([int(place)])
        return found
