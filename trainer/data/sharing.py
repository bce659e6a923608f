"""Windows of rows of which several processes encode a part each.

Turns a window into the same packs in every process, though each reads and encodes only
its share of the rows to learn how long they are, and later those of the sequences that
it needs and has not encoded yet. What processes tell each other is three numbers a
piece. It refuses to know how they talk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from trainer.data.encode import Encoder, Piece
from trainer.data.packing import Sequences, first_fit
from trainer.data.sources import RowSet, Share


@dataclasses.dataclass(frozen=True, slots=True)
class Outline:
    """A piece as all processes know it; what is in it only some have read."""

    row: int
    """Number of the row in the data."""
    part: int
    """Which piece of its row it is, from 0."""
    length: int
    loss_tokens: int
    piece: Piece | None = dataclasses.field(default=None, compare=False, repr=False)
    """What is in it, in the process that has encoded it."""

    @property
    def begins_row(self) -> bool:
        """Whether its row begins with it."""
        return self.part == 0


def outline_window(
    rows: RowSet,
    numbers: np.ndarray,
    encoder: Encoder,
    share: Share,
    *,
    window: int,
    pack: bool,
) -> list[list[Outline]]:
    """Return the sequences of a window, as `encode_window` forms them, in outline.

    Args:
        rows: All rows.
        numbers: Those of the window, in order.
        encoder: Encodes this process's share of them.
        share: How the work is shared out.
        window: Number of the window, the same in all processes.
        pack: Put several pieces into a sequence.
    """
    mine = range(share.index, len(numbers), share.count)
    pieces = encode_rows(rows, numbers[mine], encoder)
    told = [[mine[p.row], p.length, p.loss_tokens] for p in pieces]
    found = [fact for facts in share.tell(window, told) for fact in facts]
    found.sort(key=lambda fact: fact[0])  # stable: pieces of a row stay in order
    outlines: list[Outline] = []
    encoded = iter(pieces)
    for place, length, loss_tokens in found:
        row = int(numbers[place])
        follows = bool(outlines) and outlines[-1].row == row
        part = outlines[-1].part + 1 if follows else 0
        piece = next(encoded) if place % share.count == share.index else None
        outlines.append(Outline(row, part, length, loss_tokens, piece))
    if not pack:
        return [[outline] for outline in outlines]
    packs = first_fit([o.length for o in outlines], encoder.sequence_length)
    return [[outlines[item] for item in items] for items in packs]


def fill(
    outlines: Sequence[Sequence[Outline]], rows: RowSet, encoder: Encoder
) -> Sequences:
    """Return sequences with the pieces that their outlines are of."""
    missing = {o.row for sequence in outlines for o in sequence if o.piece is None}
    numbers = np.array(sorted(missing), np.int64)
    parts: dict[int, list[Piece]] = {}
    for piece in encode_rows(rows, numbers, encoder):
        parts.setdefault(int(numbers[piece.row]), []).append(piece)
    return [[o.piece or parts[o.row][o.part] for o in s] for s in outlines]


def encode_rows(rows: RowSet, numbers: np.ndarray, encoder: Encoder) -> list[Piece]:
    """Return the pieces of some rows, in order."""
    return encoder.encode(
        rows.read(numbers), place=lambda at: rows.place(int(numbers[at]))
    )
