"""The lock of a run's directory: one owner, and none for ever.

Turns a file that is created if absent into the right to work in a directory. A dead
owner's is taken over: one of this machine is looked up, one of another machine is dead
when its pulse in the file stands still. It refuses to know what the directory holds,
and JAX: it is taken before JAX is imported.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import socket
import sys
import threading
import time
from typing import Any, NoReturn

from etils import epath

from trainer import storage
from trainer.config.errors import DirectoryInUseError, StorageError

PULSE_SECONDS = 10.0
SILENT_SECONDS = 60.0  # of an owner on another machine, after which it is dead
_LOOK_SECONDS = 1.0
_IDENTITY = ("host", "space", "pid", "started", "token")

Owner = dict[str, Any]


class Lock:
    """The right to work in the directory of `path`, once taken and until released.

    Args:
        path: The file, local or remote.
        instead: What gives whoever is refused a directory of their own.
        pulse_seconds: How often the owner says that it lives.
        silent_seconds: How long an owner on another machine may say nothing.
    """

    def __init__(
        self,
        path: epath.PathLike,
        *,
        instead: str,
        pulse_seconds: float = PULSE_SECONDS,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        self._path, self._instead = epath.Path(path), instead
        self._pulse_seconds, self._silent_seconds = pulse_seconds, silent_seconds
        self._me: Owner = {
            "host": socket.gethostname(),
            "space": _process_space(),
            "pid": os.getpid(),
            "started": _process_start(os.getpid()),
            "token": secrets.token_hex(4),
            "since": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        }
        self._released = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="lock", daemon=True)

    def take(self) -> None:
        """Become the owner.

        Raises:
            DirectoryInUseError: There is a live one; it is named.
        """
        while not storage.create(self._path, self._content(0)):
            if self._take_over():
                break
        self._remove_claims()
        self._keeper.start()

    def release(self) -> None:
        """Leave the directory to whoever comes next."""
        self._released.set()
        self._keeper.join()
        owner = _read(self._path)
        if owner is not None and _name(owner) == _name(self._me):
            storage.remove(self._path)

    def _take_over(self) -> bool:
        """Replace a dead owner, and return whether this process did.

        Whoever takes over puts down a claim on the dead one first, with its own name
        in it: of several exactly one succeeds, and if that one dies in the middle there
        is a claim on its claim. A claim counts while everything below it is unchanged.
        """
        found = self._chain()
        if not found:
            return False
        path, owner = found[-1]
        if self._lives(path, owner):
            raise DirectoryInUseError(
                key=str(self._path.parent),
                expected="a directory in which no other run is at work",
                received=f"{_shown(owner)} since {owner.get('since')}",
                fix=f"wait for it, use {self._instead}, or delete {self._path} if "
                "it is gone",
            )
        claim = self._claim(owner)
        if not storage.create(claim, self._content(0)):
            return False
        still = [_name(owner) for _, owner in self._chain()]
        if still != [*(_name(owner) for _, owner in found), _name(self._me)]:
            storage.remove(claim)
            return False
        storage.write_bytes(self._path, self._content(0))
        return True

    def _chain(self) -> list[tuple[epath.Path, Owner]]:
        """Return the owner in the lock, and who claimed it after whom."""
        found, path = [], self._path
        while (owner := _read(path)) is not None:
            found.append((path, owner))
            path = self._claim(owner)
        return found

    def _claim(self, owner: Owner) -> epath.Path:
        return self._path.parent / f"{self._path.name}.after-{_name(owner)}"

    def _remove_claims(self) -> None:
        """Remove what killed processes left of taking over; the lock is ours."""
        for name in storage.list_names(self._path.parent):
            if name.startswith(f"{self._path.name}.after-"):
                storage.remove(self._path.parent / name)

    def _lives(self, path: epath.Path, owner: Owner) -> bool:
        space = owner.get("space", self._me["space"])
        if (owner.get("host"), space) == (self._me["host"], self._me["space"]):
            return _is_alive(owner)
        seconds = self._silent_seconds
        tell(f"waiting up to {seconds:g} s for a sign of life of {_shown(owner)}")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(min(_LOOK_SECONDS, seconds))
            if (seen := _read(path)) != owner:
                return seen is not None
        return False

    def _keep(self) -> None:
        """Renew the lock until it is released, or end where it was taken away."""
        beat = 0
        while not self._released.wait(self._pulse_seconds):
            beat += 1
            # the next beat may be heard; a bucket's client has errors of its own
            with contextlib.suppress(Exception):
                owner = _read(self._path)
                if owner is not None and _name(owner) != _name(self._me):
                    self._end(owner)
                storage.write_bytes(self._path, self._content(beat))

    def _end(self, owner: Owner) -> NoReturn:
        """End this process: it stood still for so long that another took over."""
        error = DirectoryInUseError(
            key=str(self._path.parent),
            expected="the directory that this process held",
            received=f"{_shown(owner)} took it over, since {owner.get('since')}",
            fix="nothing: that run goes on",
        )
        tell(error.message())
        os._exit(error.exit_code)

    def _content(self, beat: int) -> bytes:
        return json.dumps({**self._me, "beat": beat}).encode()


def tell(text: str) -> None:
    """Say a line to whoever looks at the log."""
    print(text, file=sys.stderr, flush=True)


def _read(path: epath.Path) -> Owner | None:
    """Return who is named in a lock or a claim, None where there is none."""
    try:
        return storage.read_json(path)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _name(owner: Owner) -> str:
    """Return a few digits that only this owner has, and that suit a file's name."""
    identity = json.dumps([owner.get(key) for key in _IDENTITY])
    return hashlib.sha256(identity.encode()).hexdigest()[:8]


def _shown(owner: Owner) -> str:
    return f"process {owner.get('pid')} on {owner.get('host')}"


def _is_alive(owner: Owner) -> bool:
    """Return whether the process that wrote a lock on this machine still runs."""
    pid = int(owner.get("pid", -1))
    if pathlib.Path("/proc/self/stat").exists():
        return owner.get("started") == _process_start(pid)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _process_start(pid: int) -> str | None:
    """Return when a process of this machine began, None if it runs no more.

    A number of its own tells a process from a later one with the same pid.
    """
    try:
        with open(f"/proc/{pid}/stat") as file:
            facts = file.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if facts[0] in "ZX" else facts[19]  # dead, its parent has not looked


def _process_space() -> str:
    """Return what tells apart machines, or containers, that have one host name.

    A process number means something only where it was given.
    """
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return ""
