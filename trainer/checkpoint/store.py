"""The checkpoints of a run, `<directory>/<step>/`, written by Orbax.

Turns a flat dict of named arrays and a JSON dict into a committed step and back, on
any mesh, and proves on the way back that nothing changed. It refuses to know what the
arrays mean and when a checkpoint is due.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from trainer import storage
from trainer.checkpoint import digest, record, room
from trainer.checkpoint.files import describe_bytes, describe_files
from trainer.checkpoint.inspection import (
    LeftOut,
    check_newest,
    check_step,
    choose,
    put_aside,
    read_record,
    way_out,
)
from trainer.checkpoint.opening import ARRAYS, open_manager, prepare
from trainer.checkpoint.retention import LatestAndBest, Sweeper, best_of, sweep
from trainer.checkpoint.sealing import MARKER
from trainer.config.errors import DamagedError, StorageError
from trainer.distribution.exchange import agree, from_primary

Metadata = dict[str, Any]


class Store:
    """Saves in the background, restores on another mesh, and finds damage.

    Every process of a run makes one, on the same directory, and calls it alike.
    Making one looks at every file of every step but the large ones, and deletes what a
    killed run left; one that is only read from disturbs no run that is at work.

    Args:
        directory: Parent of the steps, local or remote, shared by all processes.
        keep_last: Number of newest steps that stay; the one of lowest loss stays too.
        read_only: Nothing is saved, created, moved or deleted.
        on_corrupt: `stop` raises for a damaged step; `previous` leaves it out, and
            moves it to `<directory>-damaged/` unless the store is only read from.
        due_every: Steps between checkpoints that are due; the newest of them stays.

    Attributes:
        left_out: The damaged steps that were met.

    Raises:
        StorageError: The directory cannot be used.
        DamagedError: A step is damaged, and the rule is `stop` or it is the only one.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        keep_last: int,
        *,
        read_only: bool = False,
        on_corrupt: str = "stop",
        due_every: int = 1,
    ) -> None:
        self._directory = epath.Path(directory)
        if storage.is_local(directory):
            self._directory = self._directory.absolute()  # Orbax takes no other
        self._keep_last, self._read_only = keep_last, read_only
        self._leave_out = on_corrupt == "previous"
        self.left_out: list[LeftOut] = []
        self._losses: dict[int, float | None] = {}
        self._unsealed: dict[int, tuple[record.Record, dict[str, jax.Array]]] = {}
        self._needed = 0  # bytes of the newest save
        self._sweeper = Sweeper(self._directory)
        if not read_only:
            losses, self.left_out = prepare(
                self._directory, keep_last=keep_last, leave_out=self._leave_out
            )
            self._losses.update(losses)
        self._manager = open_manager(
            self._directory,
            read_only=read_only,
            keeps=LatestAndBest(keep_last, self._losses, due_every=due_every),
            seal=self._seal,
        )

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
        if self._read_only:  # Orbax says no in silence
            raise StorageError(
                key=str(self._directory / str(step)),
                expected="a store that saves",
                received=f"step {step} was not taken: the store is only read from",
                fix="open it without read_only",
            )
        facts = record.describe(arrays, metadata, loss=loss)
        started = digest.start(arrays)
        with self._saving():  # Orbax would, and there is one record at a time to write
            self._manager.wait_until_finished()
        if step in self._manager.all_steps():
            where, found = str(self._directory / str(step)), digest.finish(started)
            record.check_same(self._record(step), facts, found, where=where)
            return
        check_newest(self._directory, step, latest=self.latest())
        self._needed = room.bytes_of(arrays)
        self._unsealed = {step: (facts, started)}
        with self._saving():
            self._sweeper.begin()
            free = room.free_bytes(self._directory)
            if free is not None and free < self._needed:
                self._sweeper.finish()
            self._losses[step] = loss
            content = ocp.args.StandardSave(dict(arrays))
            self._manager.save(step, args=ocp.args.Composite(arrays=content))

    def _seal(self, step: int, written: epath.Path, marker: bytes) -> None:
        """Write the record of a step whose files are complete, before the commit."""
        facts, started = self._unsealed[step]
        files = {**describe_files(written), MARKER: describe_bytes(marker)}
        content = record.seal(facts, digest.finish(started), files)
        storage.write_bytes(written / record.RECORD, content)

    def rate(self, step: int, loss: float) -> None:
        """Give a kept step that was saved without a loss the one it has."""
        if step not in self.steps() or self._losses.get(step) is not None:
            return

        def rewrite() -> None:
            content = record.rated(self._record(step), loss)
            storage.write_bytes(self._directory / str(step) / record.RECORD, content)

        from_primary("the loss of a checkpoint", rewrite)
        self._losses[step] = loss

    def check_room(self, arrays: Mapping[str, Any], *, saves: int) -> None:
        """Refuse to begin `saves` more checkpoints of `arrays` that fill the disk.

        At a time there are the newest, the best, and one that is being written.
        """
        if saves <= 0:
            return
        copies = max(min(saves, self._keep_last + 2 - len(self.steps())), 1)
        check = functools.partial(room.check_room, self._directory, copies=copies)
        size = room.bytes_of(arrays)
        from_primary("room for checkpoints", lambda: check(copy_bytes=size))

    def wait(self) -> None:
        """Return when all saves are committed, or raise what one of them met."""
        with self._saving():
            self._manager.wait_until_finished()
            self._sweeper.finish()
            if not self._read_only:
                sweep(self._directory)

    def steps(self) -> list[int]:
        """Return the steps that are kept, oldest first."""
        unused = {one.step for one in self.left_out if self._read_only}
        return sorted(set(self._manager.all_steps()) - unused)

    def latest(self) -> int | None:
        """Return the newest step, or None."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """Return the kept step of lowest loss, the newest of equals, or None.

        Raises:
            DamagedError: Of a store that is only read from: a record was damaged.
        """
        while unread := self._read_only and set(self.steps()) - self._losses.keys():
            step = unread.pop()  # a run at work may add others
            try:
                self._losses[step] = record.loss(self._record(step))
            except DamagedError as damage:
                self._leave(step, damage)
        return best_of({step: self._losses.get(step) for step in self.steps()})

    def metadata(self, step: int | None = None) -> Metadata:
        """Return what was saved beside the arrays of `step`, the newest if None."""
        chosen = choose(self._directory, step, steps=self.steps())
        return record.metadata(self._record(chosen))

    def restore(
        self, step: int | None, like: Mapping[str, jax.ShapeDtypeStruct]
    ) -> tuple[dict[str, jax.Array], Metadata]:
        """Return the arrays of `step` and what came with them.

        Args:
            step: A step that is kept; None is the newest, under `previous` that is
                whole.
            like: Shape, dtype and sharding of every array, on any mesh.

        Raises:
            StorageError: There is no such step, or `like` has other names, shapes or
                dtypes.
            DamagedError: Anything that was stored has changed since. The message
                names the array or the file. In every process.
        """
        while True:
            chosen = choose(self._directory, step, steps=self.steps())
            try:
                return self._restore(chosen, like)
            except DamagedError as damage:
                self._leave(chosen, damage, asked_for=step is not None)

    def _restore(
        self, step: int, like: Mapping[str, jax.ShapeDtypeStruct]
    ) -> tuple[dict[str, jax.Array], Metadata]:
        steps, where = self.steps(), str(self._directory / str(step))
        facts = from_primary(
            "the files of a checkpoint",
            lambda: check_step(self._directory, step, steps=steps),
        )
        record.check_like(facts, like, where=where)
        fix = way_out(self._directory, step, steps)
        restored = agree("the arrays", lambda: self._read(step, like, fix))
        found = digest.digests(restored)
        record.check_digests(facts, found, where=where, fix=fix)
        return restored, record.metadata(facts)

    def _read(
        self, step: int, like: Mapping[str, jax.ShapeDtypeStruct], fix: str
    ) -> dict[str, jax.Array]:
        """Return the arrays as Orbax reads them, here."""
        place, expected = self._directory / str(step), "the arrays that were saved"
        wanted = ocp.args.StandardRestore(dict(like))
        with room.explained(place, expected, kind=DamagedError, fix=fix):
            found = self._manager.restore(step, args=ocp.args.Composite(arrays=wanted))
        return dict(found[ARRAYS])

    def forget(self, step: int) -> None:
        """Delete `step`, so that another of its number can be saved."""
        self._manager.delete(step)

    def close(self) -> None:
        """Finish all saves and release the threads that write."""
        self.wait()
        with self._saving():
            self._manager.close()
            self._sweeper.close()

    def _saving(self) -> contextlib.AbstractContextManager[None]:
        """Explain what the newest save meets."""
        step = max(self._unsealed, default="")
        return room.explained_save(self._directory / str(step), self._needed)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self.close()
        except StorageError:
            if error is None:  # what came first is what is told
                raise

    def _leave(
        self, step: int, damage: DamagedError, *, asked_for: bool = False
    ) -> None:
        """Go on without a step, put aside unless one only reads; or raise."""
        place = self._directory / str(step)
        if self._read_only and not from_primary(
            "a step", lambda: storage.exists(place)
        ):
            self._manager.reload()
            return
        if asked_for or not self._leave_out or len(self.steps()) == 1:
            raise damage
        if not self._read_only:
            aside = functools.partial(put_aside, self._directory, step)
            place = from_primary("a damaged checkpoint", aside)
            self._manager.reload()
        self.left_out.append(LeftOut(step, str(damage.received), str(place)))

    def _record(self, step: int) -> record.Record:
        """Return the record of `step`, proven to be what was written."""
        return read_record(self._directory, step, steps=self.steps())
