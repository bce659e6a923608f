"""Which checkpoints stay, the newest ones and the best, and how the others go.

Turns steps and their held-out losses into what Orbax deletes once the next one is
committed. On a disk that is a rename: a run that is killed while files are deleted
leaves no step that looks damaged. It refuses to know what else is in a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epath

from trainer import storage
from trainer.distribution.processes import is_primary

DELETING = "deleting"
"""Name among the steps, of a directory with those that are no longer any."""


class LatestAndBest:
    """Orbax's policy: keep the newest steps and the one of lowest loss."""

    def __init__(self, keep_last: int, losses: Mapping[int, float | None]) -> None:
        self._keep_last = keep_last
        self._losses = losses

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:  # noqa: ANN401  # Orbax's own types
        """Return for every checkpoint whether it stays."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = set(sorted(steps)[-self._keep_last :])
        kept.add(best_of({step: self._losses.get(step) for step in steps}))
        return [step in kept for step in steps]


def best_of(losses: Mapping[int, float | None]) -> int | None:
    """Return the step of lowest loss, the newest of equals, or None."""
    known = [(loss, -step) for step, loss in losses.items() if loss is not None]
    return -min(known)[1] if known else None


def sweep(directory: epath.Path) -> None:
    """Delete the files of deleted steps, this run's or a killed one's; once for all."""
    if is_primary() and storage.is_local(directory):  # elsewhere Orbax deletes itself
        storage.remove(directory / DELETING)
