"""The checkpoints of a run, `<directory>/<step>/`, written by Orbax.

Turns a flat dict of named arrays and a JSON dict into a committed step and back, on
any mesh, and proves on the way back that nothing changed. It refuses to know what the
arrays mean and when a checkpoint is due.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from trainer import storage
from trainer.checkpoint import record
from trainer.checkpoint.digest import digests
from trainer.checkpoint.shared import check_shared
from trainer.config.errors import StorageError

Metadata = dict[str, Any]
_ARRAYS, _RECORD = "arrays", "record"


class Store:
    """Saves in the background, restores on another mesh, and finds damage.

    Every process of a run makes one, on the same directory, and calls it alike.
    Making one deletes, in the background, what a killed run left uncommitted, unless
    it is only read from: then a run that is at work in it is not disturbed.

    Args:
        directory: Parent of the steps, local or remote, shared by all processes.
        keep_last: Number of newest steps that stay; the one of lowest loss stays too.
        read_only: Nothing is saved, created or deleted.

    Raises:
        StorageError: The directory cannot be used, or what is known of one of its
            steps was damaged: without its loss `best` would be another step.
    """

    def __init__(
        self, directory: epath.PathLike, keep_last: int, *, read_only: bool = False
    ) -> None:
        self._directory = epath.Path(directory)
        if storage.is_local(directory):
            self._directory = self._directory.absolute()  # Orbax takes no other
        if not read_only:
            with self._explained("a directory for checkpoints that can be written"):
                self._directory.mkdir(parents=True, exist_ok=True)
            check_shared(self._directory)
        self._losses: dict[int, float | None] = {}
        if read_only:  # Orbax 0.12 warns three times of what read_only means
            logging.getLogger("absl").setLevel(logging.ERROR)
        with self._explained("a directory of checkpoints"):
            self._manager = ocp.CheckpointManager(
                self._directory,
                options=ocp.CheckpointManagerOptions(
                    cleanup_tmp_directories=not read_only,
                    read_only=read_only,
                    preservation_policy=_LatestAndBest(keep_last, self._losses),
                ),
                item_handlers={
                    _ARRAYS: ocp.StandardCheckpointHandler(),
                    _RECORD: ocp.JsonCheckpointHandler(),
                },
            )
        for step in self._manager.all_steps():
            self._losses[step] = record.loss(self._record(step))

    def save(
        self,
        step: int,
        arrays: Mapping[str, jax.Array],
        metadata: Metadata,
        *,
        loss: float | None = None,
    ) -> None:
        """Start to save `step` and return as soon as the arrays may be donated.

        A step that is there already must be the same one. `loss` is what `best`
        compares; None takes no part.

        Raises:
            StorageError: The step exists with another content, a newer step exists,
                or this save or the one before it failed.
        """
        facts = record.describe(arrays, digests(arrays), metadata, loss=loss)
        if step in self._manager.all_steps():
            self._check_same(step, facts)
            return
        latest = self.latest()
        if latest is not None and step < latest:
            raise StorageError(
                key=str(self._directory / str(step)),
                expected=f"a step after {latest}, the newest checkpoint",
                received=f"step {step}",
                fix=f"continue from step {latest}, or use another run.name",
            )
        with self._explained("a checkpoint that can be written", step):
            self._losses[step] = loss
            accepted = self._manager.save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(dict(arrays)),
                    record=ocp.args.JsonSave(facts),
                ),
            )
        if not accepted:  # Orbax says no in silence
            raise StorageError(
                key=str(self._directory / str(step)),
                expected="a store that saves",
                received=f"step {step} was not taken: the store is only read from",
                fix="open it without read_only",
            )

    def wait(self) -> None:
        """Return when all saves are committed, or raise what one of them met."""
        with self._explained("a checkpoint that can be written"):
            self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        """Return the steps that are kept, oldest first."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """Return the newest step, or None."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """Return the kept step of lowest loss, the newest of equals, or None."""
        return _best({step: self._losses.get(step) for step in self.steps()})

    def metadata(self, step: int | None = None) -> Metadata:
        """Return what was saved beside the arrays of `step`, the newest if None."""
        return record.metadata(self._record(self._chosen(step)))

    def restore(
        self, step: int | None, like: Mapping[str, jax.ShapeDtypeStruct]
    ) -> tuple[dict[str, jax.Array], Metadata]:
        """Return the arrays of `step`, the newest if None, and what came with them.

        Args:
            step: A step that is kept.
            like: Shape, dtype and sharding of every array, on any mesh.

        Raises:
            StorageError: There is no such step, `like` has other names, shapes or
                dtypes, or anything that was stored has changed since. The message
                names the array or the file.
        """
        step = self._chosen(step)
        facts = self._record(step)
        where = str(self._directory / str(step))
        record.check_like(facts, like, where=where)
        with self._explained("the arrays that were saved", step, damaged=True):
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(arrays=ocp.args.StandardRestore(dict(like))),
            )[_ARRAYS]
            found = digests(restored)
        record.check_digests(facts, found, where=where, fix=self._way_out(step))
        return dict(restored), record.metadata(facts)

    def close(self) -> None:
        """Finish all saves and release the threads that write."""
        self.wait()
        self._manager.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _chosen(self, step: int | None) -> int:
        """Return `step`, or the newest, if it is there."""
        steps = self.steps()
        if step is None and steps:
            return steps[-1]
        if step in steps:
            return step
        kept = ", ".join(map(str, steps)) or "none"
        raise StorageError(
            key=str(self._directory),
            expected="a checkpoint" if step is None else f"a checkpoint of step {step}",
            received=f"checkpoints of steps: {kept}",
            fix="choose one of them, or train first",
        )

    def _record(self, step: int) -> record.Record:
        """Return the record of `step`, proven to be what was written."""
        with self._explained("the record of a checkpoint", step, damaged=True):
            facts = self._manager.restore(
                step, args=ocp.args.Composite(record=ocp.args.JsonRestore())
            )[_RECORD]
        where = str(self._directory / str(step) / _RECORD)
        record.check_whole(facts, where=where, fix=self._way_out(step))
        return facts

    def _check_same(self, step: int, facts: record.Record) -> None:
        """Refuse to save `step` again unless it would be the same."""
        self.wait()
        if record.same(self._record(step), facts):
            return
        raise StorageError(
            key=str(self._directory / str(step)),
            expected="the state that is saved there already, or a new step",
            received=f"another state for step {step}",
            fix="use another run.name, or delete this checkpoint first",
        )

    def _way_out(self, step: int) -> str:
        """Return what to do when `step` is damaged."""
        older = [other for other in self.steps() if other < step]
        delete = f"delete {self._directory / str(step)} and repeat the command"
        goes_on = f"it goes on from step {older[-1]}" if older else "it starts again"
        return f"{delete}: {goes_on}"

    @contextlib.contextmanager
    def _explained(
        self, expected: str, step: int | None = None, *, damaged: bool = False
    ) -> Iterator[None]:
        """Turn whatever Orbax and the file system raise into one kind of error.

        Orbax, TensorStore and the codecs below them have no common error, so that
        `Exception` is the only name for what a damaged file causes.
        """
        place = self._directory if step is None else self._directory / str(step)
        fix = "check free space and rights, or choose another run.root"
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            raise StorageError(
                key=str(place),
                expected=expected,
                received=f"{type(error).__name__}: {_first_lines(error)}",
                fix=self._way_out(step) if damaged and step is not None else fix,
            ) from error


class _LatestAndBest:
    """Orbax's policy: keep the newest steps and the one of lowest loss."""

    def __init__(self, keep_last: int, losses: Mapping[int, float | None]) -> None:
        self._keep_last = keep_last
        self._losses = losses

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:  # noqa: ANN401  # Orbax's own types
        """Return for every checkpoint whether it stays."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = set(sorted(steps)[-self._keep_last :])
        kept.add(_best({step: self._losses.get(step) for step in steps}))
        return [step in kept for step in steps]


def _best(losses: Mapping[int, float | None]) -> int | None:
    """Return the step of lowest loss, the newest of equals, or None."""
    known = [(loss, -step) for step, loss in losses.items() if loss is not None]
    return -min(known)[1] if known else None


def _first_lines(error: Exception) -> str:
    """Return the beginning of a message: TensorStore appends whole specifications."""
    return " ".join(str(error).split())[:600]
