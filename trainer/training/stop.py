"""Requests to the loop: a signal ends it after its step, a file has it save.

Turns what this process or another one of the run was told into what all of them do
after the same step. Before the first step and after the last checkpoint there is
nothing to wait for: then a signal ends the run where it is. It refuses to know how
files are looked for and how the processes agree.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from types import TracebackType

from trainer.config.interruption import Interrupted, ask_instead, handling

SAVE = 1
"""Told like a signal's number, below those that stop."""


class StopRequest:
    """While entered, and from `keep` on, the first signal asks.

    Args:
        say: Tells a person what the first signal does.
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self._say = say
        self.signal: signal.Signals | None = None
        self._agree: Callable[[int], int] = lambda number: number
        self._takes_save: Callable[[], bool] = lambda: False
        self.wants_save = False
        self._handled = contextlib.ExitStack()

    def share(self, agree: Callable[[int], int]) -> None:
        """Stop together with other processes.

        Args:
            agree: Called once a step in all of them, with the own signal's number or 0;
                returns the number that all of them stop for, or 0.
        """
        self._agree = agree

    def keep(self) -> None:
        """Say that there is something to save: from now on a signal only asks."""
        ask_instead(self._ask)

    def let_go(self) -> None:
        """Say that everything is saved: from now on a signal ends the run.

        Raises:
            Interrupted: There has been one, here or in another process.
        """
        ask_instead(None)
        if self.signal is not None:
            raise Interrupted(self.signal)

    def is_asked(self) -> bool:
        """Return whether to stop now, alike in all processes; all call it alike."""
        wanted = SAVE if self._takes_save() else 0
        agreed = self._agree(self.signal or wanted)
        if agreed == SAVE:
            self.wants_save = True
        elif agreed:
            self.signal = signal.Signals(agreed)
        return agreed > SAVE

    def save_with(self, takes_save: Callable[[], bool]) -> None:
        """Save on request.

        Args:
            takes_save: Called once a step; returns whether somebody asks for a
                checkpoint, once for each time.
        """
        self._takes_save = takes_save

    def saved(self) -> None:
        """Take note that what was asked for is saved."""
        self.wants_save = False

    def __enter__(self) -> StopRequest:
        self._handled.enter_context(handling())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # what was asked is answered: the run saved and ends
        with contextlib.suppress(Interrupted):
            ask_instead(None)
        self._handled.close()

    def _ask(self, number: signal.Signals) -> None:
        self.signal = number
        self._say("stopping at the end of this step; once more stops at once")
