"""A signal to this process becomes its end: at once, or when its work is saved.

Turns SIGTERM and SIGINT into `Interrupted` in the main thread or, while there is work
to save, into a request. A second one ends at once. Python runs no handler while the
main thread compiles or waits in other code: a thread that hears of the signal as well
ends the process then. It refuses to know what is saved, and how.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from trainer.config.errors import Preempted

STOPPED_BY_USER = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)
UNWIND_SECONDS = 10.0  # in which the main thread may close what is open
_TELL_SECONDS = 15.0  # in which the other processes are told
_LOOK_SECONDS = 0.2


class Interrupted(KeyboardInterrupt):
    """The end of a process that was told to end and has nothing to save."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)

    @property
    def exit_code(self) -> int:
        """Return 83 where the machine is taken away, 130 where a person stops."""
        is_term = self.signal == signal.SIGTERM
        return Preempted.exit_code if is_term else STOPPED_BY_USER

    def message(self) -> str:
        """Return what a person is told."""
        if self.signal == signal.SIGINT:
            return f"stopped (exit code {self.exit_code}); the same command goes on"
        return Preempted(
            key=self.signal.name,
            expected="time to go on",
            received="a signal to end, and no step that is not saved",
            fix="the same command goes on, from the last checkpoint if there is one",
        ).message()


class _State:
    """What this process was told, and what it does then; one for its life."""

    is_listening = False
    has_begun = False
    is_shielded = False
    told: Interrupted | None = None
    was_raised = False
    ask: Callable[[signal.Signals], None] | None = None
    code: int | None = None


before_leaving: list[Callable[[int], None]] = []
"""Called with the exit code before the process leaves in an orderly way."""


def listen() -> None:
    """Answer signals from now on: call it first of all, in the main thread.

    Until `begin` nothing is open, and a signal ends the process on the spot.
    """
    if _State.is_listening:
        return
    _State.is_listening = True
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in SIGNALS:
        signal.signal(number, _handle)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True)
    watch.start()


def begin() -> None:
    """Raise `Interrupted` for a signal from now on, instead of leaving on the spot."""
    _State.has_begun = True


def settle(code: int) -> None:
    """Say that the exit code is known: no signal changes it any more."""
    _State.code = code


def was_told() -> bool:
    """Return whether there has been a signal."""
    return _State.told is not None


def raised() -> Interrupted | None:
    """Return what was raised in the main thread for a signal, if anything was.

    Other code may have made an error of its own of it: h5py 3.16 does in a comparison.
    """
    return _State.told if _State.was_raised else None


@contextlib.contextmanager
def handling() -> Iterator[None]:
    """Answer signals meanwhile, also in a process that does not `listen`."""
    if _State.is_listening:
        yield
        return
    before = {number: signal.signal(number, _handle) for number in SIGNALS}
    begun, _State.has_begun, _State.code = _State.has_begun, True, None
    try:
        yield
    finally:
        _State.has_begun, _State.told, _State.was_raised = begun, None, False
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Raise no `Interrupted` meanwhile, but right after it.

    For what breaks where an exception comes out of nowhere: jaxlib 0.10.2 crashes when
    that happens in its import.

    Raises:
        Interrupted: There was a signal.
    """
    _State.is_shielded = True
    try:
        yield
    finally:
        _State.is_shielded = False
    if _State.told is not None and _State.ask is None:
        raise _State.told


def ask_instead(ask: Callable[[signal.Signals], None] | None) -> None:
    """Have the first signal passed to `ask` from now on; None ends that.

    Raises:
        Interrupted: `ask` was told of a signal, and it is over.
    """
    _State.ask = ask
    if ask is None and _State.told is not None:
        raise _State.told


def _handle(number: int, frame: FrameType | None) -> None:
    told = Interrupted(number)
    if _State.code is not None:
        os._exit(_State.code)
    if _State.told is not None or not _State.has_begun:
        _leave(told)
    _State.told = told
    if _State.ask is not None:
        _State.ask(told.signal)
    elif not _State.is_shielded:
        _State.was_raised = True
        raise told


def _watch(reader: int) -> None:
    """End the process where the main thread does not, for ever."""
    told: Interrupted | None = None
    since = 0.0
    while True:
        pause = None if told is None else _LOOK_SECONDS
        ready, _, _ = select.select([reader], [], [], pause)
        for number in os.read(reader, 64) if ready else b"":
            if signal.getsignal(number) is not _handle:
                continue  # somebody else's, as a supervisor's
            if told is not None:
                _leave(told)
            told, since = Interrupted(number), time.monotonic()
        if _State.ask is not None:
            since = time.monotonic()
        elif told and time.monotonic() - since > UNWIND_SECONDS:
            _tell_others(told.exit_code)
            _leave(told)


def _tell_others(code: int) -> None:
    """Do what has to be done before leaving, as long as that does not hang."""

    def tell() -> None:
        for call in before_leaving:
            call(code)

    teller = threading.Thread(target=tell, name="leaving", daemon=True)
    teller.start()
    teller.join(_TELL_SECONDS)


def _leave(told: Interrupted) -> NoReturn:
    """End this process now, whatever it is doing; nothing is closed."""
    code = told.exit_code if _State.code is None else _State.code
    with contextlib.suppress(OSError):
        os.write(2, f"{told.message()}\n".encode())
    os._exit(code)
