"""Every way in which a run can end badly: an exit code and a message of one screen.

Turns what was expected, what came and what to type instead into the text that a user
reads. It refuses to know where the errors come from; other packages raise them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import ClassVar

WIDTH = 88
MAX_PROBLEMS_SHOWN = 6
SMALLER_STEP = "a smaller trainer.microbatch_size or data.sequence_length"
_LABEL_WIDTH = 10


class RunError(Exception):
    """An end of a run that its user can do something about.

    Args:
        key: Configuration key, file or process that the problem is about.
        expected: What would have been right, in words.
        received: What came instead; shown by `repr` unless it is a string.
        fix: What to type or do instead.
    """

    exit_code: ClassVar[int] = 1
    title: ClassVar[str] = "the run ended"

    def __init__(self, *, key: str, expected: str, received: object, fix: str) -> None:
        self.key = key
        self.expected = expected
        self.received = received
        self.fix = fix
        super().__init__(self.message())

    def message(self) -> str:
        """Return the title and the four facts, wrapped to `WIDTH` columns."""
        return "\n".join([f"{self.title} (exit code {self.exit_code})", self.facts()])

    def facts(self) -> str:
        """Return key, expected, received and fix, a line or paragraph each."""
        received = self.received
        shown = received if isinstance(received, str) else repr(received)
        rows = {
            "key": self.key,
            "expected": self.expected,
            "received": shown,
            "fix": self.fix,
        }
        return "\n".join(_paragraph(label, text) for label, text in rows.items())


class ConfigError(RunError):
    """A key, value or combination that cannot be meant."""

    exit_code = 2
    title = "configuration error"


class ConfigErrors(ConfigError):
    """Several configuration problems, told together."""

    def __init__(self, problems: Sequence[ConfigError]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(
            key=first.key,
            expected=first.expected,
            received=first.received,
            fix=first.fix,
        )

    def message(self) -> str:
        """Return the first problems in full and the keys of the others."""
        head = f"{len(self.problems)} configuration errors (exit code {self.exit_code})"
        shown = [problem.facts() for problem in self.problems[:MAX_PROBLEMS_SHOWN]]
        rest = [problem.key for problem in self.problems[MAX_PROBLEMS_SHOWN:]]
        if rest:
            shown.append(_paragraph("also", ", ".join(rest)))
        return "\n\n".join([head, *shown])


class DataError(RunError):
    """Rows that cannot be found or read; never shows their content."""

    exit_code = 3
    title = "data error"


class PresetError(RunError):
    """A preset or its weights that cannot be found, read or trusted."""

    exit_code = 4
    title = "preset error"


class MemoryPlanError(RunError):
    """A plan that does not fit the devices, or memory that ran out."""

    exit_code = 5
    title = "out of memory"


class PeerLostError(RunError):
    """Another process of the run was lost or is stuck."""

    exit_code = 6
    title = "a process was lost"


class StorageError(RunError):
    """A directory or file that cannot be written, or was damaged."""

    exit_code = 7
    title = "storage error"


class DamagedError(StorageError):
    """A checkpoint that is no longer what was saved."""

    title = "a damaged checkpoint"


class NumericsError(RunError):
    """Numbers that are no longer finite."""

    exit_code = 8
    title = "numerics error"


class DirectoryInUseError(RunError):
    """A run directory in which another run is at work."""

    exit_code = 9
    title = "directory in use"


class Preempted(RunError):  # noqa: N818  # an end by intention, not an error
    """The machine was taken away; the state is saved and the run can go on."""

    exit_code = 83
    title = "preempted"


def _paragraph(label: str, text: str) -> str:
    """Return `text` beside `label`, its own line breaks kept."""
    margin = " " * (_LABEL_WIDTH + 2)
    width = WIDTH - len(margin)
    lines = [
        piece
        for line in text.splitlines() or [""]
        for piece in textwrap.wrap(
            line, width, break_on_hyphens=False, break_long_words=False
        )
        or [""]
    ]
    return f"  {label:<{_LABEL_WIDTH}}" + f"\n{margin}".join(lines)
