"""What a preset or adapter that cannot be used says to whoever asked for it.

Turns expected, received and a fix into one message. It refuses to know where the
message is shown and with which exit code.
"""

from __future__ import annotations


def status_of(error: BaseException) -> int | None:
    """Return the status of a server's answer that an error carries, if it does."""
    return getattr(getattr(error, "response", None), "status_code", None)


class PresetFileError(ValueError):
    """A preset, adapter or handle that cannot be read as what it claims to be."""

    def __init__(
        self, subject: object, *, expected: str, received: object, fix: str
    ) -> None:
        """Keep the four parts for callers that arrange them differently."""
        self.subject = str(subject)
        self.expected = expected
        self.received = received
        self.fix = fix
        super().__init__(
            f"{self.subject}: expected {expected}, received {received}; {fix}"
        )
