"""The processes of a run find each other, before any of them computes.

Turns an address, a number and a few facts into the list of hosts, or into an error in
every process that names who is missing or has other facts. JAX's own start waits as
long but names nobody: it aborts the process. It refuses to know JAX; when all are
here, the address is free again for JAX's service.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import selectors
import socket
import time
from collections.abc import Mapping
from typing import Any

from trainer.config.errors import ConfigError, ConfigErrors, PeerLostError, RunError
from trainer.distribution.detection import Rendezvous

_GREETING = "gemma-trainer roll call 1"
_RETRY_SECONDS = 0.2
_ANSWER_SECONDS = 10.0  # what the answer may take after the last process has come
_MAX_BYTES = 1 << 20
_SHOWN = 20  # indices in a message

Facts = Mapping[str, Any]


def call_roll(meeting: Rendezvous, facts: Facts, *, seconds: float) -> list[str]:
    """Return the hosts of all processes by their index, once all have come.

    Args:
        meeting: Where and who.
        facts: What has to be the same in all of them, JSON-able.
        seconds: How long to wait for the last one.

    Raises:
        PeerLostError: Somebody is missing; every process that came names them.
        ConfigError: The address cannot be used, two processes have one index, or the
            facts differ; the same in every process.
    """
    me = {
        "greeting": _GREETING,
        "index": meeting.index,
        "host": socket.gethostname(),
        "facts": {**facts, "distributed.num_processes": meeting.count},
    }
    until = time.monotonic() + seconds
    with contextlib.ExitStack() as sockets:
        if meeting.index == 0:
            answer = _Desk(meeting, me, sockets).wait(until)
        else:
            answer = _answer_for(meeting, me, until)
    hosts = {int(index): host for index, host in answer["hosts"].items()}
    _raise_wrong(answer, hosts, meeting, seconds)
    return [hosts[index] for index in range(meeting.count)]


class _Desk:
    """Process 0: hears everybody and tells all of them the same."""

    def __init__(
        self, meeting: Rendezvous, me: Facts, sockets: contextlib.ExitStack
    ) -> None:
        self._count = meeting.count
        self._here: dict[int, Facts] = {0: me}
        self._twice: dict[int, list[str]] = {}
        self._open: list[socket.socket] = []
        self._heard: dict[socket.socket, bytes] = {}
        self._sockets = sockets
        self._selector = sockets.enter_context(selectors.DefaultSelector())
        self._listener = sockets.enter_context(_listen(meeting.address))
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def wait(self, until: float) -> dict[str, Any]:
        """Return, and tell everybody who came, how the roll call ended."""
        while len(self._here) < self._count and not self._twice:
            left = until - time.monotonic()
            if left <= 0:
                break
            ready = [key for key, _ in self._selector.select(left)]
            # who hung up before whoever came: it may be the same one, started again
            for key in sorted(ready, key=lambda key: key.fileobj not in self._open):
                key.data()
        answer = {
            "hosts": {index: fact["host"] for index, fact in self._here.items()},
            "differences": differences(self._here),
            "twice": self._twice,
        }
        line = json.dumps(answer).encode() + b"\n"
        for peer in self._open:
            with contextlib.suppress(OSError):  # it went just now: it is missed later
                peer.sendall(line)
        return json.loads(line)

    def _accept(self) -> None:
        peer, _ = self._listener.accept()
        self._sockets.enter_context(peer)
        peer.settimeout(_ANSWER_SECONDS)
        self._heard[peer] = b""
        hear = functools.partial(self._hear, peer)
        self._selector.register(peer, selectors.EVENT_READ, hear)

    def _hear(self, peer: socket.socket) -> None:
        """Take what a peer says; strangers are hung up on."""
        try:
            said = peer.recv(1 << 16)
        except OSError:
            said = b""
        self._heard[peer] += said
        ends = not said or len(self._heard[peer]) > _MAX_BYTES
        if not ends and not self._heard[peer].endswith(b"\n"):
            return
        self._selector.unregister(peer)
        fact = _greeting(self._heard.pop(peer))
        if fact is None:
            peer.close()
            return
        self._open.append(peer)
        lose = functools.partial(self._lose, peer, fact)
        self._selector.register(peer, selectors.EVENT_READ, lose)
        other = self._here.setdefault(fact["index"], fact)
        if other is not fact:
            self._twice[fact["index"]] = [other["host"], fact["host"]]

    def _lose(self, peer: socket.socket, fact: Facts) -> None:
        """Forget a process that hung up while it waited; it may be started again."""
        self._selector.unregister(peer)
        self._open.remove(peer)
        peer.close()
        if self._here.get(fact["index"]) is fact:
            del self._here[fact["index"]]


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", int(port)), family=socket.AF_INET6, dualstack_ipv6=True
            )
        return socket.create_server(("", int(port)))
    except OSError as error:
        raise ConfigError(
            key="distributed.coordinator",
            expected=f"a port that is free on {socket.gethostname()}",
            received=f"{address}: {os.strerror(error.errno or 0)}",
            fix=f"distributed.coordinator={host}:{int(port) % 65535 + 1} in every "
            "process, or end the program that has the port",
        ) from error


def _answer_for(meeting: Rendezvous, me: Facts, until: float) -> dict[str, Any]:
    """Return what process 0 answers, asking again until it is there."""
    line = json.dumps(me).encode() + b"\n"
    reason = "no answer"
    while time.monotonic() < until:
        try:
            heard = _ask(meeting.address, line, until)
        except OSError as error:
            heard, reason = b"", error.strerror or str(error)
        if heard.endswith(b"\n") and heard.startswith(b"{"):
            return json.loads(heard)
        if heard:
            reason = "another program answered there"
        time.sleep(_RETRY_SECONDS)
    raise PeerLostError(
        key="distributed.coordinator",
        expected=f"process 0 at {meeting.address}",
        received=f"process 0 is missing: {reason} (seen from process {meeting.index} "
        f"on {socket.gethostname()})",
        fix="start process 0 on that host, open the port between the hosts, or name "
        "another distributed.coordinator in every process",
    )


def _ask(address: str, line: bytes, until: float) -> bytes:
    """Return the line with which the other side answers, b"" if it hangs up."""
    host, _, port = address.rpartition(":")
    heard = b""
    left = max(until - time.monotonic(), _RETRY_SECONDS)
    with socket.create_connection((host.strip("[]"), int(port)), left) as peer:
        peer.settimeout(left + _ANSWER_SECONDS)
        peer.sendall(line)
        while not heard.endswith(b"\n") and len(heard) < _MAX_BYTES:
            said = peer.recv(1 << 16)
            if not said:
                break
            heard += said
    return heard


def _greeting(said: bytes) -> dict[str, Any] | None:
    """Return what a process of a run said of itself, None of a stranger."""
    try:
        fact = json.loads(said)
    except ValueError:
        return None
    known = isinstance(fact, dict) and fact.get("greeting") == _GREETING
    return fact if known and isinstance(fact.get("index"), int) else None


def differences(here: Mapping[int, Facts]) -> dict[str, list[list[Any]]]:
    """Map each fact that differs to its values, each with the processes that have it.

    The commonest value is first: who has another one is who is wrong, most likely.
    """
    keys = dict.fromkeys(key for fact in here.values() for key in fact["facts"])
    found = {}
    for key in keys:
        groups: dict[str, list[int]] = {}
        for index in sorted(here):
            value = json.dumps(here[index]["facts"].get(key))
            groups.setdefault(value, []).append(index)
        if len(groups) > 1:
            ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
            found[key] = [[json.loads(value), who] for value, who in ordered]
    return found


def _raise_wrong(
    answer: Mapping[str, Any],
    hosts: Mapping[int, str],
    meeting: Rendezvous,
    seconds: float,
) -> None:
    missing = [str(i) for i in range(meeting.count) if i not in hosts]
    if answer["twice"]:
        index, (first, second) = next(iter(answer["twice"].items()))
        raise ConfigError(
            key="distributed.process_index",
            expected="an index of its own in every process",
            received=f"{index} on {first} and on {second}",
            fix=f"number the {meeting.count} processes from 0",
        )
    if answer["differences"]:
        raise difference_error(answer["differences"], hosts)
    if missing:
        here = ", ".join(f"{i} on {hosts[i]}" for i in sorted(hosts)[:_SHOWN])
        raise PeerLostError(
            key="distributed.num_processes",
            expected=f"{meeting.count} processes within {seconds:g} s "
            "(distributed.initialize_seconds)",
            received=f"missing: {', '.join(missing[:_SHOWN])}; here: {here}",
            fix="look at the logs of the missing ones, then start all of them again",
        )


def difference_error(
    differences: Mapping[str, list[list[Any]]], hosts: Mapping[int, str]
) -> RunError:
    """Return an error with every fact that is not the same in all processes."""
    problems = [
        ConfigError(
            key=key,
            expected=f"one value in all processes: {_shown(values[0], hosts)}",
            received="; ".join(_shown(value, hosts) for value in values[1:]),
            fix="start every process with the same command, code and packages",
        )
        for key, values in differences.items()
    ]
    return problems[0] if len(problems) == 1 else ConfigErrors(problems)


def _shown(value: list[Any], hosts: Mapping[int, str]) -> str:
    who = ", ".join(f"{i} on {hosts[i]}" for i in value[1][:_SHOWN])
    return f"{value[0]} (process {who})"
