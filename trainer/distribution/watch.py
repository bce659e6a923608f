"""A process that dies or hangs takes the others with it, soon and by name.

Turns a pulse of every process, kept in JAX's key-value store, into an end with exit
code 6 where one stops, or with the code of one that was told to end. Two threads: one
talks to the store and may wait for ever, the other one looks at the clock and does not.
It refuses to know what the run computes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from trainer.config.errors import PeerLostError, Preempted
from trainer.config.interruption import STOPPED_BY_USER, Interrupted

_ALIVE, _ENDED = "trainer/alive/", "trainer/ended/"
_PULSE_SECONDS = 1.0
_PROCESSES_A_SECOND = 64  # above, pulses are rarer: everybody reads all of them
_LOOK_SECONDS = 0.5
_PAUSE_SECONDS = 5.0  # a clock that jumps by more stood still, with this process
_GRACE_SECONDS = 5.0  # in which a process may come to the end that another has met
_SILENT_SECONDS = 3.0


@dataclasses.dataclass
class _Peer:
    """What is known of another process."""

    said: str = ""
    since: float = 0.0  # when it last said something new


class Watch:
    """Tells the other processes that this one lives, and looks after them.

    Args:
        store: JAX's key-value store.
        index: Number of this process.
        hosts: Hosts of all processes.
        heartbeat_seconds: Silence after which a process is lost.
        stuck_seconds: Time after which this one is stuck where it is.
    """

    def __init__(
        self,
        store: Any,  # noqa: ANN401  # jaxlib's client has no public type
        index: int,
        hosts: Sequence[str],
        *,
        heartbeat_seconds: float,
        stuck_seconds: float,
    ) -> None:
        self._store, self._index, self._hosts = store, index, list(hosts)
        self._heartbeat_seconds = heartbeat_seconds
        self._stuck_seconds = stuck_seconds
        now = time.monotonic()
        self._peers = {i: _Peer(since=now) for i in range(len(hosts)) if i != index}
        self._ended: dict[int, dict[str, Any]] = {}
        self._end_seen = 0.0
        self._heard = now
        self._steps, self._place, self._moved = 0, "its start", now
        self._is_leaving = self._is_concluding = False
        for work in (self._pulse, self._look):
            threading.Thread(target=work, name="watch", daemon=True).start()

    def advance(self, place: str) -> None:
        """Say that this process got further, and where it is now."""
        self._steps, self._place, self._moved = (
            self._steps + 1,
            place,
            time.monotonic(),
        )

    def silent(self) -> list[str]:
        """Return the processes that have ended or said nothing for a few seconds."""
        now = time.monotonic()
        return [
            self._name(i)
            for i, peer in self._peers.items()
            if i in self._ended or now - peer.since > _SILENT_SECONDS
        ]

    def told_to_end(self) -> Interrupted | None:
        """Return the signal that a process ended for, if nothing else went wrong."""
        codes = {end["code"] for end in self._ended.values()}
        codes -= {0, PeerLostError.exit_code}  # who was lost may have followed, too
        if codes == {Preempted.exit_code}:
            return Interrupted(signal.SIGTERM)
        followed = codes <= {STOPPED_BY_USER, Preempted.exit_code}
        return Interrupted(signal.SIGINT) if codes and followed else None

    @contextlib.contextmanager
    def concluding(self) -> Iterator[None]:
        """Follow no process that has ended, while this one closes what it leaves."""
        self._is_concluding = True
        try:
            yield
        finally:
            self._end_seen = self._end_seen and time.monotonic()
            self._is_concluding = False

    def end(self, code: int, words: str) -> None:
        """Tell the others that this process ends; process 0 waits for them.

        With process 0 their key-value store goes, and with the store they would.
        """
        self._is_leaving = True
        with contextlib.suppress(RuntimeError):  # JaxRuntimeError: process 0 is gone
            said = json.dumps({"code": code, "words": words})
            self._store.key_value_set(f"{_ENDED}{self._index}", said)
        if self._index:
            return
        longest = self._stuck_seconds if code == 0 else 2 * _GRACE_SECONDS
        until = time.monotonic() + longest
        while time.monotonic() < until and len(self._ended) < len(self._peers):
            if code == 0 and self._lost(time.monotonic()):
                return
            time.sleep(_LOOK_SECONDS / 5)

    def _pulse(self) -> None:
        """Say and hear, for ever."""
        pause = _PULSE_SECONDS * max(1.0, len(self._hosts) / _PROCESSES_A_SECOND)
        beat = 0
        while True:
            beat += 1
            with contextlib.suppress(RuntimeError):
                self._talk(json.dumps([beat, self._steps, self._place]))
            time.sleep(pause)

    def _talk(self, said: str) -> None:
        self._store.key_value_set(f"{_ALIVE}{self._index}", said, allow_overwrite=True)
        heard = self._store.key_value_dir_get(_ALIVE)
        ended = self._store.key_value_dir_get(_ENDED)
        now = time.monotonic()
        for key, value in heard:
            peer = self._peers.get(int(key.rsplit("/", 1)[1]))
            if peer is not None and peer.said != value:
                peer.said, peer.since = value, now
        ends = {int(key.rsplit("/", 1)[1]): json.loads(v) for key, v in ended}
        ends.pop(self._index, None)
        if any(e["code"] for e in ends.values()) and not self._end_seen:
            self._end_seen = now
        self._ended, self._heard = ends, now

    def _look(self) -> None:
        """Compare what was heard with the clock, for ever."""
        last = time.monotonic()
        while True:
            time.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            if now - last > _PAUSE_SECONDS:
                self._forgive(now - last)
            last = now
            if self._is_leaving:
                continue
            is_due = now - self._end_seen > _GRACE_SECONDS
            if self._end_seen and is_due and not self._is_concluding:
                self._follow()
            if lost := self._lost(now):
                names = ", ".join(map(self._name, lost))
                self._fall(
                    f"{names}: no sign of life for {self._heartbeat_seconds:g} s "
                    "(distributed.heartbeat_seconds)"
                )
            if now - self._moved > self._stuck_seconds:
                self._fall(self._words_of_stuck())

    def _forgive(self, seconds: float) -> None:
        """Leave out a time in which this process itself stood still."""
        self._heard += seconds
        self._moved += seconds
        for peer in self._peers.values():
            peer.since += seconds

    def _lost(self, now: float) -> list[int]:
        if now - self._heard > self._heartbeat_seconds:
            return [0]  # nobody else has the store
        return [
            i
            for i, peer in self._peers.items()
            if i not in self._ended and now - peer.since > self._heartbeat_seconds
        ]

    def _words_of_ended(self) -> str:
        return "; ".join(
            f"{self._name(i)} ended with exit code {end['code']}"
            + (f" ({end['words']})" if end["words"] else "")
            for i, end in sorted(self._ended.items())
            if end["code"]
        )

    def _words_of_stuck(self) -> str:
        """Say where this process stands and, where others are behind, who."""
        words = (
            f"{self._name(self._index)} stands at {self._place} for "
            f"{self._stuck_seconds:g} s (distributed.stuck_seconds)"
        )
        places = {i: json.loads(p.said)[1:] for i, p in self._peers.items() if p.said}
        behind = [
            f"{self._name(i)} at {place}"
            for i, (steps, place) in sorted(places.items())
            if steps < self._steps
        ]
        return words + ("; behind it: " + ", ".join(behind) if behind else "")

    def _name(self, index: int) -> str:
        return f"process {index} on {self._hosts[index]}"

    def _follow(self) -> NoReturn:
        """End as the process did that ended: told to, or with something wrong."""
        told = self.told_to_end()
        if told is None:
            self._fall(self._words_of_ended())
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            words = f"{told.message()}\n  {self._words_of_ended()}"
            print(words, file=sys.stderr, flush=True)
        os._exit(told.exit_code)

    def _fall(self, received: str) -> NoReturn:
        """End this process now: a normal exit would wait for the lost one."""
        error = PeerLostError(
            key=self._name(self._index),
            expected="all processes at work",
            received=received,
            fix="the log of the named process says why; the same command goes on from "
            "the last checkpoint",
        )
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            print(error.message(), file=sys.stderr, flush=True)
            faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        os._exit(PeerLostError.exit_code)
