"""A person asks for a checkpoint now, with a file.

Turns a file that appears in a run's directory into a request, once, and takes the file
away when the checkpoint it asked for is committed. A thread looks, so that a file in a
bucket costs no step. It refuses to know steps and other processes.
"""

from __future__ import annotations

import contextlib
import threading

from etils import epath

from trainer import storage
from trainer.checkpoint.inspection import committed_steps
from trainer.config.errors import StorageError
from trainer.distribution.processes import is_primary

NAME = "SAVE"
_LOCAL_SECONDS, _REMOTE_SECONDS = 0.5, 10.0  # a look into a bucket is paid for


class SaveRequest:
    """Process 0 looks for the file while this is entered; every process has one.

    Args:
        directory: The run's, in which a person makes a file `SAVE`.
        checkpoints: Parent of the steps.
    """

    def __init__(self, directory: epath.Path, checkpoints: epath.Path) -> None:
        self._file, self._checkpoints = directory / NAME, checkpoints
        is_local = storage.is_local(directory)
        self._seconds = _LOCAL_SECONDS if is_local else _REMOTE_SECONDS
        self._is_seen = self._is_taken = False
        self._saving: int | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name="SAVE", daemon=True)

    def take(self) -> bool:
        """Return whether there is a request, once for each."""
        if self._is_taken or not self._is_seen:
            return False
        self._is_taken = True
        return True

    def started(self, step: int) -> None:
        """Say that a checkpoint was begun: it answers a request that is there."""
        if self._is_seen and self._saving is None:
            self._saving, self._is_taken = step, True

    def __enter__(self) -> SaveRequest:
        if is_primary():
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()
        if is_primary():
            self._thread.join()
        if self._saving is not None:
            with contextlib.suppress(StorageError):  # the next start looks again
                self._finish()

    def _look(self) -> None:
        while not self._closed.wait(self._seconds):
            # looks again; a bucket's client has errors of its own
            with contextlib.suppress(Exception):
                if self._saving is not None:
                    self._finish()
                elif not self._is_seen:
                    self._is_seen = storage.exists(self._file)

    def _finish(self) -> None:
        """Take the file away if what it asked for is there, or came and went."""
        newest = max(committed_steps(self._checkpoints), default=-1)
        if self._saving is not None and newest >= self._saving:
            storage.remove(self._file)
            self._saving, self._is_seen, self._is_taken = None, False, False
