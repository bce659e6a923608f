"""Rows to ids with loss masks, never longer than a sequence.

Turns conversations into Gemma's turns and plain text into BOS, text and EOS, many rows
in one call to SentencePiece. It refuses to know files, order and packing.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gemma.chat import ChatFormat, MaskedIds
from gemma.tokenizers import GemmaTokenizer
from trainer.config.errors import DataError
from trainer.data.rows import PlainText, Row


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """A row, or a part of a long text, that fits into a sequence."""

    ids: np.ndarray
    """Inputs and, shifted by one, labels (int32)."""
    loss_mask: np.ndarray
    """True where an id is learned as a label (bool); never at the first."""
    row: int
    """Row of the window that it comes from."""
    begins_row: bool = True
    """False for the second and later parts of a text."""

    @property
    def length(self) -> int:
        """Positions it fills."""
        return len(self.ids) - 1

    @property
    def loss_tokens(self) -> int:
        """Positions whose label is learned."""
        return int(np.count_nonzero(self.loss_mask))


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Encodes rows for sequences of one length."""

    tokenizer: GemmaTokenizer
    sequence_length: int
    on_long_row: str
    """`truncate`, `skip` or `raise`, for conversations; text goes on in a new piece."""

    def encode(
        self, rows: Sequence[Row], place: Callable[[int], str] = str
    ) -> list[Piece]:
        """Return the pieces of rows, in order; none for a row with nothing to learn.

        Args:
            rows: Rows to encode together.
            place: Says where the n-th of `rows` is, for messages.

        Raises:
            DataError: A row is longer than a sequence and `on_long_row` is `raise`.
        """
        chat = ChatFormat(self.tokenizer)
        texts = itertools.chain.from_iterable(_texts(row) for row in rows)
        encoded = iter(self.tokenizer.encode_content(texts))
        pieces: list[Piece] = []
        for number, row in enumerate(rows):
            if isinstance(row, PlainText):
                pieces += self._cut_text(next(encoded), number)
                continue
            roles = [turn.role for turn in row.turns]
            masked = chat.assemble(roles, [*itertools.islice(encoded, len(roles))])
            pieces += self._fit(masked, number, place)
        return pieces

    def _fit(
        self, masked: MaskedIds, row: int, place: Callable[[int], str]
    ) -> Iterator[Piece]:
        """Yield a conversation as one piece, cut to a sequence, if it teaches."""
        count = len(masked.ids) - 1
        if count > self.sequence_length:
            if self.on_long_row == "raise":
                raise self._long_row(place(row), count)
            if self.on_long_row == "skip":
                return
        end = self.sequence_length + 1
        ids, mask = masked.ids[:end], masked.loss_mask[:end]
        if mask.any():
            yield Piece(ids, mask, row)

    def _cut_text(self, content: np.ndarray, row: int) -> Iterator[Piece]:
        """Yield BOS, text and EOS in pieces that learn every id exactly once.

        A later piece opens with BOS, as Gemma expects, and the last id before it, which
        gives context and is not learned again.
        """
        bos, eos = self.tokenizer.start_token_id, self.tokenizer.end_token_id
        ids = np.concatenate([[bos], content, [eos]]).astype(np.int32)
        mask = np.ones(len(ids), bool)
        mask[0] = False
        end = self.sequence_length + 1
        yield Piece(ids[:end], mask[:end], row)
        step = max(1, self.sequence_length - 1)
        for start in range(end, len(ids), step):
            part = ids[start - 1 : start + step]
            mask = np.ones(len(part) + 1, bool)
            mask[:2] = False
            yield Piece(np.append(ids[:1], part), mask, row, begins_row=False)

    def _long_row(self, place: str, count: int) -> DataError:
        return DataError(
            key="data.on_long_row",
            expected=f"rows of at most {self.sequence_length} tokens",
            received=f"{place} with {count} tokens",
            fix=f"data.sequence_length={count}, or data.on_long_row=truncate",
        )


def _texts(row: Row) -> Iterator[str]:
    """Yield what is to be encoded of a row."""
    if isinstance(row, PlainText):
        yield row.text
    else:
        for turn in row.turns:
            yield turn.content
