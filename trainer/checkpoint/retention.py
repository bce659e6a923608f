"""Which checkpoints stay, the newest ones and the best, and how the others go.

Turns steps and their held-out losses into what Orbax deletes once the next one is
committed. On a disk that is a rename: a run that is killed while files are deleted
leaves no step that looks damaged. It refuses to know what else is in a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent import futures
from typing import Any

from etils import epath

from trainer import storage
from trainer.distribution.processes import is_primary

DELETING = "deleting"
"""Name among the steps, of a directory with those that are no longer any."""


class LatestAndBest:
    """Orbax's policy: keep the newest steps and the one of lowest loss.

    Args:
        keep_last: How many of the newest.
        losses: Of the steps, as far as they are known.
        due_every: Steps between those that are due: the newest of these stays, too,
            however many were saved on request since.
    """

    def __init__(
        self, keep_last: int, losses: Mapping[int, float | None], *, due_every: int
    ) -> None:
        self._keep_last, self._due_every = keep_last, due_every
        self._losses = losses

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:  # noqa: ANN401  # Orbax's own types
        """Return for every checkpoint whether it stays."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = set(sorted(steps)[-self._keep_last :])
        kept.add(best_of({step: self._losses.get(step) for step in steps}))
        kept.add(max((s for s in steps if s % self._due_every == 0), default=None))
        return [step in kept for step in steps]


def best_of(losses: Mapping[int, float | None]) -> int | None:
    """Return the step of lowest finite loss, the newest of equals, or None."""
    known = [
        (loss, -step)
        for step, loss in losses.items()
        if loss is not None and math.isfinite(loss)
    ]
    return -min(known)[1] if known else None


def sweep(directory: epath.Path) -> None:
    """Delete the files of deleted steps, this run's or a killed one's; once for all."""
    if is_primary() and storage.is_local(directory):  # elsewhere Orbax deletes itself
        storage.remove(directory / DELETING)


class Sweeper:
    """Deletes the files of deleted steps in a thread, while the loop goes on.

    Orbax moves a step among them whole, at any time, and none away.

    Args:
        directory: Parent of the steps.
    """

    def __init__(self, directory: epath.Path) -> None:
        self._place = directory / DELETING
        self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix="sweep")
        self._under_way: futures.Future[None] | None = None

    def begin(self) -> None:
        """Start to delete what is there.

        Raises:
            StorageError: As `finish` does, of what was begun before.
        """
        self.finish()
        if is_primary() and storage.is_local(self._place):
            self._under_way = self._thread.submit(self._empty)

    def finish(self) -> None:
        """Return when it is deleted.

        Raises:
            StorageError: It cannot be.
        """
        begun, self._under_way = self._under_way, None
        if begun is not None:
            begun.result()

    def close(self) -> None:
        """Let the thread go."""
        self._thread.shutdown()

    def _empty(self) -> None:
        for name in storage.list_names(self._place):
            storage.remove(self._place / name)
