"""The endless stream of training batches, from any position.

Turns good rows into global batches whose content is a function of (seed, position)
alone: every process computes the same order and packs, and builds the arrays of its
own sequences only. It refuses to know devices, and processes beyond the sequences that
it is asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np

from trainer.config.errors import DataError
from trainer.data.encode import Encoder, Piece
from trainer.data.order import Position, shuffled
from trainer.data.packing import (
    Batch,
    Sequences,
    bucket_length,
    build_batch,
    first_fit,
)
from trainer.data.sharing import Outline, Share, encode_rows, fill, outline_window
from trainer.data.sources import RowSet

PREFETCHED_WINDOWS = 2
ENDLESS = 1 << 62

Rows = slice | Sequence[int]
Outlines = Sequence[Sequence[Outline]]


@dataclasses.dataclass(frozen=True)
class BatchFacts:
    """What a global batch holds, all processes together."""

    rows: int
    """Rows that begin in it."""
    lengths: tuple[int, ...]
    """Positions of every row, or piece of one; padding is in none."""
    loss_tokens: int
    """Positions whose label is learned."""

    @property
    def tokens(self) -> int:
        """Positions that are no padding."""
        return sum(self.lengths)


class Step(NamedTuple):
    """A batch, and where the next one begins."""

    batch: Batch
    position: Position
    facts: BatchFacts
    row_numbers: tuple[int, ...]
    """Rows of the data that it has pieces of, in its order."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingStream:
    """Training batches in an order that seed and position decide."""

    rows: RowSet
    encoder: Encoder
    seed: int
    global_batch_size: int
    pack: bool
    pack_window_rows: int
    shuffle: bool
    share: Share | None = None
    """How processes share the encoding of windows; None encodes all of them here."""

    @property
    def windows_per_epoch(self) -> int:
        """Windows of rows in which packs are formed, the last one smaller."""
        return -(-len(self.rows) // self.pack_window_rows)

    def batches(
        self, start: Position | None = None, *, rows: Rows | None = None
    ) -> Iterator[Step]:
        """Yield batches for ever, from `start` on.

        A background thread encodes the next windows; it ends with the iterator.

        Args:
            start: A position that an earlier step returned; None is the beginning.
            rows: Sequences of each global batch to build; None builds all. Facts,
                positions and bucket are those of the global batch.

        Raises:
            DataError: No row of a whole epoch has anything to learn.
        """
        start = start or Position()
        wanted: list[Sequence[Piece | Outline]] = []
        numbers: list[int] = []
        for sequence, of_sequence, position in self._sequences(start):
            wanted.append(sequence)
            numbers += of_sequence
            if len(wanted) < self.global_batch_size:
                continue
            batch, facts = self._build(wanted, rows), measure(wanted)
            yield Step(batch, position, facts, tuple(numbers))
            wanted, numbers = [], []

    def window_rows(self, epoch: int, window: int) -> np.ndarray:
        """Return the numbers of the rows in a window of an epoch, in order."""
        first = window * self.pack_window_rows
        places = np.arange(first, min(first + self.pack_window_rows, len(self.rows)))
        if not self.shuffle:
            return places
        return shuffled(places, size=len(self.rows), seed=self.seed, epoch=epoch)

    def _sequences(
        self, start: Position
    ) -> Iterator[tuple[Sequence[Piece | Outline], list[int], Position]]:
        """Yield sequences from `start` on, with their rows and the position after."""
        per_epoch = self.windows_per_epoch
        first = start.epoch * per_epoch + start.window
        windows = (
            grain.MapDataset.range(first, ENDLESS)
            .map(self._window)
            .to_iter_dataset(
                grain.ReadOptions(
                    num_threads=1, prefetch_buffer_size=PREFETCHED_WINDOWS
                )
            )
        )
        iterator = iter(windows)
        empty, offset = 0, start.offset
        try:
            for number in range(first, ENDLESS):
                sequences = next(iterator)
                empty = 0 if sequences else empty + 1
                if empty >= per_epoch:
                    raise _nothing_to_learn(len(self.rows))
                epoch, window = divmod(number, per_epoch)
                following = divmod(number + 1, per_epoch)
                of_window = self.window_rows(epoch, window)
                for at in range(offset, len(sequences)):
                    if at + 1 < len(sequences):
                        after = Position.at(epoch=epoch, window=window, offset=at + 1)
                    else:
                        after = Position.at(
                            epoch=following[0], window=following[1], offset=0
                        )
                    yield sequences[at], row_numbers(sequences[at], of_window), after
                offset = 0
        finally:
            iterator.close()

    def _window(self, number: int) -> Sequences | Outlines:
        """Return the sequences of a window, counted over all epochs."""
        epoch, window = divmod(int(number), self.windows_per_epoch)
        numbers = self.window_rows(epoch, window)
        how = {"pack": self.pack}
        if self.share is None:
            return encode_window(self.rows, numbers, self.encoder, **how)
        share, window = self.share, int(number)
        return outline_window(
            self.rows, numbers, self.encoder, share, window=window, **how
        )

    def _build(self, wanted: Sequences | Outlines, rows: Rows | None) -> Batch:
        length = batch_length(wanted, self.encoder.sequence_length, pack=self.pack)
        pad = self.encoder.tokenizer.pad_token_id
        chosen = select(wanted, rows)
        if self.share is not None:
            chosen = fill(chosen, self.rows, self.encoder)
        return build_batch(chosen, length, pad_token_id=pad)


def encode_window(
    rows: RowSet, numbers: np.ndarray, encoder: Encoder, *, pack: bool
) -> Sequences:
    """Return the sequences that some rows make: packs, or one for each piece."""
    pieces = encode_rows(rows, numbers, encoder)
    if not pack:
        return [[piece] for piece in pieces]
    packs = first_fit([piece.length for piece in pieces], encoder.sequence_length)
    return [[pieces[item] for item in pack_items] for pack_items in packs]


def batch_length(
    sequences: Sequences | Outlines, sequence_length: int, *, pack: bool
) -> int:
    """Return the width of a batch: whole when packed, else the smallest bucket."""
    if pack:
        return sequence_length
    longest = max((piece.length for row in sequences for piece in row), default=0)
    return bucket_length(longest, sequence_length)


def measure(sequences: Sequences | Outlines) -> BatchFacts:
    """Count rows and tokens of sequences."""
    pieces = [piece for sequence in sequences for piece in sequence]
    return BatchFacts(
        rows=sum(piece.begins_row for piece in pieces),
        lengths=tuple(piece.length for piece in pieces),
        loss_tokens=sum(piece.loss_tokens for piece in pieces),
    )


def row_numbers(
    sequence: Sequence[Piece | Outline], of_window: np.ndarray
) -> list[int]:
    """Return the number in the data of each piece's row.

    Args:
        sequence: Of pieces, which know the place of their row in the window, or of
            outlines, which know the number.
        of_window: Numbers of the window's rows.
    """
    return [
        piece.row if isinstance(piece, Outline) else int(of_window[piece.row])
        for piece in sequence
    ]


def select(sequences: Sequences | Outlines, rows: Rows | None) -> Sequences | Outlines:
    """Return the sequences that a process wants."""
    if rows is None:
        return sequences
    if isinstance(rows, slice):
        return sequences[rows]
    return [sequences[int(row)] for row in rows]


def _nothing_to_learn(count: int) -> DataError:
    return DataError(
        key="data.sequence_length",
        expected="rows whose response begins within a sequence",
        received=f"{count} rows, none of which has anything to learn left",
        fix="a larger data.sequence_length, or data.on_long_row=truncate",
    )
