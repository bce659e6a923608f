"""A run's directory: found again by the same command, never another run's.

Turns a configuration into `<run.root>/<run.name>/`, its lock and its `config.yaml`.
It refuses to overwrite what another configuration made, and it does without JAX: a run
that may not begin is told before JAX is imported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from etils import epath

from gemma.presets import PresetFileError
from trainer import storage
from trainer.config.compose import from_yaml, to_yaml
from trainer.config.distributed_schema import expected_processes, index_before_joining
from trainer.config.errors import (
    ConfigError,
    DataError,
    PresetError,
    RunError,
)
from trainer.config.identity import Difference, check_resume, run_name
from trainer.config.schema import RunConfig
from trainer.tasks.lock import Lock

CONFIG, LOCK, DONE = "config.yaml", "LOCK", "done.json"
REFUSALS = (ConfigError, DataError, PresetError, PresetFileError)
_early: dict[str, RunError | None] = {}  # places that are held early, or why not


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
        lock = Lock(self.path / LOCK, instead=instead)
        is_new = not storage.list_names(self.path)
        lock.take()
        try:
            yield
        except REFUSALS:
            if is_new and not storage.list_names(self.checkpoints):
                self._forget_run()
            raise
        finally:
            lock.release()
            if is_new:
                storage.remove_if_empty(self.path)

    def _forget_run(self) -> None:
        """Remove everything but the lock, which is released in its own time."""
        for name in storage.list_names(self.path):
            if name != LOCK:
                storage.remove(self.path / name)

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
def held_early(config: RunConfig) -> Iterator[None]:
    """Hold the directory of a run that is to be trained, before JAX is imported.

    Only the first of several processes does, where keys or environment tell which that
    is; what refuses it is kept until all have met, and `held` raises it in all of them.

    Raises:
        RunError: The run of this process alone may not begin.
    """
    first = index_before_joining(config.distributed, config.device.simulated) == 0
    if config.task != "train" or not first:
        yield
        return
    directory = RunDirectory(config)
    place = str(directory.path)
    with contextlib.ExitStack() as lock:
        try:
            done = directory.results_of(config)
            if not done or done["step"] < config.trainer.num_train_steps:
                lock.enter_context(directory.locked())
                _early[place] = None
        except RunError as error:
            if expected_processes(config.distributed) == 1:
                raise
            _early[place] = error
        try:
            yield
        finally:
            _early.pop(place, None)


@contextlib.contextmanager
def held(
    directory: RunDirectory, *, instead: str = "another run.name"
) -> Iterator[None]:
    """Hold a directory, once: where `held_early` does, there is nothing left to do.

    Args:
        directory: What to hold.
        instead: As in `RunDirectory.locked`.

    Raises:
        RunError: What `held_early` met, or a live process of another run holds it.
    """
    place = str(directory.path)
    if error := _early.get(place):
        raise error
    hold = (
        contextlib.nullcontext()
        if place in _early
        else directory.locked(instead=instead)
    )
    with hold:
        yield
