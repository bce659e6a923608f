"""The fixed list of held-out batches, and prompts to answer.

Turns held-out rows into the same batches every time, in the order of the source. It
refuses to know losses and the model.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from trainer.data.batches import (
    BatchFacts,
    Rows,
    batch_length,
    encode_window,
    measure,
    select,
)
from trainer.data.encode import Encoder
from trainer.data.packing import Batch, Sequences, build_batch
from trainer.data.rows import PlainText, Row
from trainer.data.sources import RowSet


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """Held-out rows, each used once in every evaluation."""

    rows: RowSet
    encoder: Encoder
    global_batch_size: int
    pack: bool
    pack_window_rows: int

    def batches(self, *, rows: Rows | None = None) -> Iterator[Batch]:
        """Yield all batches; the last is filled up with empty sequences.

        Args:
            rows: Sequences of each global batch to build; None builds all.
        """
        pad = self.encoder.tokenizer.pad_token_id
        for group in self._groups():
            yield build_batch(
                select(group, rows), self._length(group), pad_token_id=pad
            )

    def lengths(self) -> list[int]:
        """Return the lengths that the batches have, each once, from the shortest."""
        return sorted({self._length(group) for group in self._groups()})

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self._sequences) // self.global_batch_size)

    def prompts(self, count: int) -> list[tuple[str, str]]:
        """Return the first prompts and their references.

        Of a conversation, the first user turn and the model's answer; of plain text,
        its first half and its second.
        """
        rows = self.rows.read(range(min(count, len(self.rows))))
        return [_prompt_and_reference(row) for row in rows]

    @property
    def prompts_are_chat(self) -> bool:
        """Whether prompts are turns of a user, not text to go on with."""
        return not isinstance(self.rows.read([0])[0], PlainText)

    @functools.cached_property
    def facts(self) -> BatchFacts:
        """Rows and tokens of a whole evaluation."""
        return measure(self._sequences)

    def _groups(self) -> Iterator[Sequences]:
        size = self.global_batch_size
        for start in range(0, len(self._sequences), size):
            group = [*self._sequences[start : start + size]]
            yield group + [[] for _ in range(size - len(group))]

    def _length(self, group: Sequences) -> int:
        return batch_length(group, self.encoder.sequence_length, pack=self.pack)

    @functools.cached_property
    def _sequences(self) -> Sequences:
        sequences: list = []
        for first in range(0, len(self.rows), self.pack_window_rows):
            last = min(first + self.pack_window_rows, len(self.rows))
            numbers = np.arange(first, last)
            sequences += encode_window(self.rows, numbers, self.encoder, pack=self.pack)
        return sequences


def _prompt_and_reference(row: Row) -> tuple[str, str]:
    if isinstance(row, PlainText):
        words = row.text.split(" ")
        middle = (len(words) + 1) // 2
        return " ".join(words[:middle]), " ".join(words[middle:])
    return row.turns[0].content, row.turns[1].content
