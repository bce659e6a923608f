"""The processes of one run on one machine: started, watched, ended, started again.

Turns commands into one exit code. All of them live and die together, none outlives its
supervisor, and the wait for each is bounded. It refuses to know what the commands do;
their exit codes are those of a run.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

from launch.children import die_with_parent, relay_output
from trainer.config.ending import STOPPED_BY_USER
from trainer.config.errors import PeerLostError, Preempted

RESTARTED = (PeerLostError.exit_code, Preempted.exit_code)
_FORWARDED = (signal.SIGTERM, signal.SIGINT)
_POLL_SECONDS = 0.1
_MAX_BACKOFF_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Patience:
    """Seconds that the processes of a run get to follow the one that ended first.

    Attributes:
        leave: To notice by themselves that one was lost, dump their stacks and go;
            more than `distributed.heartbeat_seconds`.
        save: To save and go, once they were told to or one of them has been preempted.
        backoff: Before the first restart; doubled before each further one.
    """

    leave: float = 45.0
    save: float = 600.0
    backoff: float = 1.0


Commands = Callable[[int], Sequence[Sequence[str]]]


def supervise(
    commands: Commands,
    *,
    max_restarts: int,
    patience: Patience | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run the processes until they are done, or ended for good; return their code.

    Ends with 6 and 83 are followed by another start, unless a signal to us caused them.

    Args:
        commands: What to start, a command a process, for each attempt from 0.
        max_restarts: Further attempts at most.
        patience: How long to wait for processes that have to go.
        environment: Variables that they get besides ours; lines of Python's come at
            once in any case.
    """
    variables = {"PYTHONUNBUFFERED": "1", **os.environ, **(environment or {})}
    patience = patience or Patience()
    with _Signals() as signals:
        attempt = 0
        while True:
            attempted = _Attempt(commands(attempt), variables, patience, signals)
            code = attempted.run()
            last = attempt == max_restarts
            if code not in RESTARTED or signals.received or last:
                _tell_end(code, attempt, last=last and max_restarts > 0)
                return code
            seconds = min(patience.backoff * 2**attempt, _MAX_BACKOFF_SECONDS)
            _tell(
                f"ended with {code}; restart {attempt + 1} of {max_restarts} "
                f"in {seconds:g} s"
            )
            signals.sleep(seconds)
            if signals.received:
                return code
            attempt += 1


class _Signals:
    """SIGTERM and SIGINT while they are ours: counted, for the processes to get."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._before: dict[int, object] = {}

    def __enter__(self) -> _Signals:
        for number in _FORWARDED:
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than until a signal comes."""
        until = time.monotonic() + seconds
        while not self.received and time.monotonic() < until:
            time.sleep(min(_POLL_SECONDS, seconds))


class _Attempt:
    """One start of all processes, up to the end of the last one."""

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        variables: Mapping[str, str],
        patience: Patience,
        signals: _Signals,
    ) -> None:
        self._variables, self._patience, self._signals = variables, patience, signals
        self._forwarded = len(signals.received)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._commands = commands
        self._codes: dict[int, int] = {}  # in the order of the ends
        self._told_at: float | None = None

    def run(self) -> int:
        relays = []
        try:
            for command in self._commands:
                alone = len(self._commands) == 1
                process = _start(command, self._variables, alone=alone)
                self._processes.append(process)
            for index, process in enumerate(self._processes):  # no thread before a fork
                relays += relay_output(process, f"[{index}] ")
            while len(self._codes) < len(self._processes):
                self._look()
                time.sleep(_POLL_SECONDS)
        finally:
            self._end_all()
            for relay in relays:
                relay.join(timeout=self._patience.backoff)
        return _joint_code(list(self._codes.values()))

    def _look(self) -> None:
        """Note who has ended, pass on signals, and end those that outstay."""
        for index, process in enumerate(self._processes):
            if index not in self._codes and process.poll() is not None:
                self._codes[index] = _code(process.returncode)
                self._tell_process(index, process.returncode)
        for number in self._signals.received[self._forwarded :]:
            self._forwarded += 1
            self._signal(number)
        self._hurry()

    def _hurry(self) -> None:
        """End processes that stay longer than the first that ended, or than told."""
        bad = [code for code in self._codes.values() if code]
        now = time.monotonic()
        if self._told_at is None and (bad or self._forwarded):
            self._told_at = now
        if self._told_at is None:
            return
        waited = now - self._told_at
        saving = self._forwarded or all(code == Preempted.exit_code for code in bad)
        patience = self._patience.save if saving else self._patience.leave
        if waited > patience:
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        for index, process in enumerate(self._processes):
            if index not in self._codes:
                _signal_group(process, number)

    def _tell_process(self, index: int, returncode: int) -> None:
        if self._codes[index] and len(self._processes) > 1:
            how = f", by {signal.Signals(-returncode).name}" if returncode < 0 else ""
            _tell(f"process {index} ended with {self._codes[index]}{how}")

    def _end_all(self) -> None:
        """Leave nothing behind, not even what a process had started itself."""
        for process in self._processes:
            _signal_group(process, signal.SIGKILL)
            process.wait()


def _start(
    command: Sequence[str], variables: Mapping[str, str], *, alone: bool
) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own; one alone keeps our terminal."""
    stream = None if alone else subprocess.PIPE
    return subprocess.Popen(
        list(command),
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=stream,
        stderr=stream,
        start_new_session=True,  # a Ctrl-C reaches it through us, once
        preexec_fn=die_with_parent(os.getpid()),
    )


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Signal a process and, when it has to die, everything that it started."""
    try:
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        elif process.poll() is None:
            process.send_signal(number)
    except (ProcessLookupError, PermissionError):
        return


def _code(returncode: int) -> int:
    """Return the exit code of a run; one that a signal ended is a process lost."""
    return PeerLostError.exit_code if returncode < 0 else returncode


def _joint_code(codes: Sequence[int]) -> int:
    """Return the code that says most: what caused the end before what followed from it.

    Args:
        codes: Of all processes, in the order in which they ended.
    """
    followed = (0, *RESTARTED, STOPPED_BY_USER)
    causes = [code for code in codes if code not in followed]
    later = [code for code in (STOPPED_BY_USER, *reversed(RESTARTED)) if code in codes]
    return next(iter([*causes, *later, 0]))


def _tell_end(code: int, restarts: int, *, last: bool) -> None:
    if last and code in RESTARTED:
        _tell(f"ended with {code} after {restarts} restarts, as many as there may be")


def _tell(text: str) -> None:
    print(f"launch: {text}", file=sys.stderr, flush=True)
