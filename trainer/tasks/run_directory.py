"""A run's directory: found again by the same command, never another run's.

Turns a configuration into `<run.root>/<run.name>/`, its lock and its `config.yaml`.
It refuses to overwrite what another configuration made.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from etils import epath

from gemma.presets import PresetFileError
from trainer import storage
from trainer.config.compose import from_yaml, to_yaml
from trainer.config.errors import (
    ConfigError,
    DataError,
    DirectoryInUseError,
    PresetError,
)
from trainer.config.identity import Difference, check_resume, run_name
from trainer.config.schema import RunConfig
from trainer.distribution.exchange import from_primary

CONFIG, LOCK, DONE = "config.yaml", "LOCK", "done.json"
REFUSALS = (ConfigError, DataError, PresetError, PresetFileError)


class RunDirectory:
    """Paths of one run, and what stands there already."""

    def __init__(self, config: RunConfig) -> None:
        self.name = run_name(config)
        self.path = epath.Path(config.run.root) / self.name

    @property
    def checkpoints(self) -> epath.Path:
        """Parent of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def artifacts(self) -> epath.Path:
        """Parent of adapter and preset."""
        return self.path / "artifacts"

    def exists(self) -> bool:
        """Return whether a run began here."""
        return storage.exists(self.path / CONFIG)

    def stored_config(self) -> RunConfig:
        """Return the configuration that the run was last started with."""
        path = self.path / CONFIG
        return from_yaml(storage.read_text(path), origin=str(path))

    def admit(self, config: RunConfig) -> Difference | None:
        """Check that `config` may go on here; None where nothing is here yet.

        Raises:
            ConfigError: Another configuration made the directory, or `resume` forbids.
        """
        if not self.exists():
            if config.resume == "must":
                raise ConfigError(
                    key="resume",
                    expected=f"a run to go on with in {self.path}",
                    received="resume=must and no such run",
                    fix="resume=auto, or the run.name and run.root of a run",
                )
            return None
        if config.resume == "never":
            raise ConfigError(
                key="resume",
                expected=f"a directory without a run, since {self.path} has one",
                received="resume=never",
                fix="resume=auto goes on with it; another run.name starts anew",
            )
        return check_resume(self.stored_config(), config, directory=str(self.path))

    def results_of(self, config: RunConfig) -> dict[str, object] | None:
        """Return the results of a finished run that `config` may go on with.

        Raises:
            ConfigError: Another configuration made the directory, or `resume` forbids.
        """
        self.admit(config)
        return self.results()

    def changes(self, config: RunConfig) -> dict[str, object]:
        """Return the keys that changed since the last start, with both values.

        Raises:
            ConfigError: Another configuration made the directory, or `resume` forbids.
        """
        found = self.admit(config)
        return dict(found.allowed) if found else {}

    def write_config(self, config: RunConfig) -> None:
        """Keep the resolved configuration; there are no secrets in it."""
        storage.write_text(self.path / CONFIG, to_yaml(config))

    @contextlib.contextmanager
    def locked(self, *, instead: str = "another run.name") -> Iterator[None]:
        """Hold the directory; a lock of a process that is gone is taken over.

        A run that is refused in a new directory, before its first checkpoint, takes
        the directory with it: with what was wrong put right it is another run.

        Args:
            instead: What gives whoever is refused a directory of their own.

        Raises:
            DirectoryInUseError: A live process holds it.
        """
        lock = self.path / LOCK
        is_new = not storage.list_names(self.path)
        owner = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _process_start(os.getpid()),
            "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        content = json.dumps(owner).encode()
        if not storage.create(lock, content):
            self._take_over(lock, owner, instead)
        try:
            yield
        except REFUSALS:
            if is_new and not storage.list_names(self.checkpoints):
                storage.remove(self.path)
            raise
        finally:
            storage.remove(lock)

    def _take_over(
        self, lock: epath.Path, owner: dict[str, object], instead: str
    ) -> None:
        """Replace the lock of a dead owner; of several that try, one succeeds."""
        other = storage.read_json(lock)
        pid = other.get("pid", -1)
        claim = self.path / f"{LOCK}.after-{pid}"
        if other.get("host") == owner["host"] and not _is_alive(other):
            claimed = storage.create(claim, b"")
            try:
                if claimed and storage.read_json(lock) == other:
                    storage.write_bytes(lock, json.dumps(owner).encode())
                    return
            finally:
                if claimed:
                    storage.remove(claim)
        raise DirectoryInUseError(
            key=str(self.path),
            expected="a directory in which no other run is at work",
            received=f"process {pid} on {other.get('host')} since {other.get('since')}",
            fix=f"wait for it, use {instead}, or delete {lock} if it is gone",
        )

    def mark_done(self, results: dict[str, object]) -> None:
        """Write the results, last of all: their presence says the run is whole."""
        storage.write_json(self.path / DONE, results)

    def results(self) -> dict[str, object] | None:
        """Return the results of a finished run, None while there are none."""
        done = self.path / DONE
        return storage.read_json(done) if storage.exists(done) else None

    def forget_done(self) -> None:
        """Remove the results, before more steps are trained."""
        storage.remove(self.path / DONE)


@contextlib.contextmanager
def held(
    directory: RunDirectory, *, instead: str = "another run.name"
) -> Iterator[None]:
    """Hold a directory for all processes of the run: the first one has the lock.

    Args:
        directory: What to hold.
        instead: As in `RunDirectory.locked`.

    Raises:
        DirectoryInUseError: A live process of another run holds it; in every process.
    """
    with contextlib.ExitStack() as lock:
        hold = directory.locked(instead=instead)
        from_primary("the lock", lambda: lock.enter_context(hold))
        yield


def _is_alive(owner: dict[str, object]) -> bool:
    """Return whether the process that wrote a lock on this host still runs."""
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
    """Return when a process of this host began, None if there is none.

    A number of its own tells a process from a later one with the same pid.
    """
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[19]
    except FileNotFoundError:
        return None
