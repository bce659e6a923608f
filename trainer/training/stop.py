"""A signal while there is work to save: the loop finishes its step, saves and ends.

Turns a signal, to this process or another one of the run, into an answer that the loop
asks for once a step. Before the first step and after the last checkpoint there is
nothing to wait for: then a signal ends the run where it is.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from types import TracebackType

from trainer.config.interruption import Interrupted, ask_instead, handling


class StopRequest:
    """While entered, and from `keep` on, the first signal asks.

    Args:
        say: Tells a person what the first signal does.
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self._say = say
        self.signal: signal.Signals | None = None
        self._agree: Callable[[int], int] | None = None
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
        """Return whether to stop now, alike in all processes; call it once a step."""
        if self._agree is None:
            return self.signal is not None
        agreed = self._agree(self.signal or 0)
        if agreed:
            self.signal = signal.Signals(agreed)
        return agreed > 0

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
