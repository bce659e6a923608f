"""Where rows come from, whatever the kind: sources, and the rows in them that are good.

Turns a source into numbered good rows, each read on request. It refuses to know tokens
and order; the kinds of sources are in `trainer.data.jsonl` and `trainer.data.tfds`.
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
import pathlib
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from trainer.config.errors import DataError
from trainer.config.schema import ColumnsConfig
from trainer.data.jsonl import JsonlSource
from trainer.data.rows import BadRowError, Row

WORDNET_DIRECTORY = pathlib.Path(__file__).parent / "wordnet"
MAX_BAD_ROWS_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Share:
    """Which part of some work is this process's.

    Attributes:
        index: Number of this process, from 0.
        count: Processes of the run.
        tell: Called in all of them with the number of a round, as of a window, and a
            JSON-able value; returns the values of all, by process.
    """

    index: int
    count: int
    tell: Callable[[int, Any], list[Any]]


class Source(Protocol):
    """Numbered records, some of which may turn out to be no rows."""

    def __len__(self) -> int:
        """Return the number of records."""

    def read(self, index: int) -> Row:
        """Return row `index`, or raise BadRowError."""

    def place(self, index: int) -> str:
        """Return where row `index` is, in a form that an editor opens."""

    def digest(self) -> str:
        """Return a hash of the content."""


@dataclasses.dataclass(frozen=True)
class BadRow:
    """Where a record is that is no row, and why."""

    place: str
    reason: str
    index: int = 0
    """Number of the record."""

    def __str__(self) -> str:
        return f"{self.place} {self.reason}"


@dataclasses.dataclass(frozen=True)
class RowSet:
    """The good rows of a source, numbered from 0."""

    source: Source
    indices: np.ndarray
    """Record of each good row (int64)."""
    bad_rows: tuple[BadRow, ...] = ()
    """The first few records that are left out."""
    bad_row_count: int = 0

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, numbers: Iterable[int]) -> list[Row]:
        """Return rows by number."""
        return [self.source.read(int(self.indices[number])) for number in numbers]

    def place(self, number: int) -> str:
        """Return where row `number` is."""
        return self.source.place(int(self.indices[number]))


def open_wordnet(split: str) -> JsonlSource:
    """Open the embedded rows: `train` or `heldout`."""
    return JsonlSource(
        [WORDNET_DIRECTORY / f"{split}.jsonl"],
        ColumnsConfig(),
        names=[f"wordnet/{split}.jsonl"],
    )


def check_rows(
    source: Source,
    *,
    on_bad_row: str,
    key: str,
    limit: int | None = None,
    share: Share | None = None,
) -> RowSet:
    """Read every record once, before training, and keep the good rows.

    Args:
        source: What to read.
        on_bad_row: `raise` or `skip`.
        key: The configuration key that named the source.
        limit: Keep the first so many good rows; None keeps all.
        share: The part of the records that this process reads, all of which have the
            same; None reads all of them here.

    Raises:
        DataError: There are bad rows and `on_bad_row` is `raise`, or no good ones; the
            same in all processes.
    """
    if share is None or limit is not None:
        checked = _check(source, range(len(source)), limit)
    else:
        mine = range(share.index, len(source), share.count)
        told = _check(source, mine, None).tell()
        checked = _joined([_Checked.hear(t) for t in share.tell(0, told)], len(source))
    bad = checked.bad[:MAX_BAD_ROWS_SHOWN]
    if bad and on_bad_row == "raise":
        raise _bad_rows_error(bad, checked.bad_count, len(source), key=key)
    if not checked.good.any():
        raise _no_rows_error(bad, len(source), key=key)
    return RowSet(source, np.flatnonzero(checked.good), tuple(bad), checked.bad_count)


@dataclasses.dataclass(frozen=True)
class _Checked:
    """Which of some records are good rows, and why the first others are none."""

    good: np.ndarray
    """Of each record (bool); False for those after the limit."""
    bad: list[BadRow]
    bad_count: int

    def tell(self) -> dict[str, Any]:
        """Return it as JSON that is short where nearly all are alike."""
        packed = zlib.compress(np.packbits(self.good).tobytes())
        return {
            "good": base64.b64encode(packed).decode(),
            "records": len(self.good),
            "bad": [dataclasses.astuple(row) for row in self.bad],
            "bad_count": self.bad_count,
        }

    @classmethod
    def hear(cls, told: dict[str, Any]) -> _Checked:
        """Return what another process told."""
        packed = np.frombuffer(zlib.decompress(base64.b64decode(told["good"])), "uint8")
        good = np.unpackbits(packed, count=told["records"]).astype(bool)
        return cls(good, [BadRow(*row) for row in told["bad"]], told["bad_count"])


def _check(source: Source, indices: range, limit: int | None) -> _Checked:
    """Read records, up to the limit of good ones."""
    good = np.zeros(len(indices), bool)
    bad: list[BadRow] = []
    good_count = bad_count = 0
    for number, index in enumerate(indices):
        if good_count == limit:
            break
        try:
            source.read(index)
            good[number] = True
            good_count += 1
        except BadRowError as error:
            bad_count += 1
            if len(bad) < MAX_BAD_ROWS_SHOWN:
                bad.append(BadRow(source.place(index), str(error), index))
    return _Checked(good, bad, bad_count)


def _joined(parts: Sequence[_Checked], total: int) -> _Checked:
    """Return what all processes found together; each has read every n-th record."""
    good = np.zeros(total, bool)
    for number, part in enumerate(parts):
        good[number :: len(parts)] = part.good
    bad = sorted((row for part in parts for row in part.bad), key=lambda row: row.index)
    return _Checked(good, bad, sum(part.bad_count for part in parts))


def list_bad_rows(bad: Iterable[BadRow], count: int) -> str:
    """Return the first bad rows, a line each, and how many more there are."""
    lines = [str(row) for row in itertools.islice(bad, MAX_BAD_ROWS_SHOWN)]
    if count > len(lines):
        lines.append(f"and {count - len(lines)} more")
    return "\n".join(lines)


def _bad_rows_error(
    bad: list[BadRow], count: int, total: int, *, key: str
) -> DataError:
    return DataError(
        key=key,
        expected="JSON objects with the columns of a row",
        received=f"{count} bad of {total} rows:\n{list_bad_rows(bad, count)}",
        fix="correct these rows, or leave them out with data.on_bad_row=skip",
    )


def _no_rows_error(bad: list[BadRow], total: int, *, key: str) -> DataError:
    received = f"{total} rows, none of them good" if total else "no rows"
    listed = f":\n{list_bad_rows(bad, total)}" if bad else ""
    return DataError(
        key=key,
        expected="at least one row",
        received=received + listed,
        fix="name a file with rows, or correct these",
    )
