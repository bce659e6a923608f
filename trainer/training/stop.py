"""Signals as a request: the loop finishes its step, saves and ends."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType


class StopRequest:
    """While entered, the first SIGINT or SIGTERM asks, the second ends at once.

    Args:
        say: Tells a person what the first signal does.
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self._say = say
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}
        self._agree: Callable[[int], int] | None = None

    def share(self, agree: Callable[[int], int]) -> None:
        """Stop together with other processes.

        Args:
            agree: Called once a step in all of them, with the own signal's number or 0;
                returns the number that all of them stop for, or 0.
        """
        self._agree = agree

    def is_asked(self) -> bool:
        """Return whether to stop now, alike in all processes; call it once a step."""
        if self._agree is None:
            return self.signal is not None
        agreed = self._agree(self.signal or 0)
        if agreed:
            self.signal = signal.Signals(agreed)
        return agreed > 0

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal = signal.Signals(number)
        self._say("stopping at the end of this step; once more stops at once")
