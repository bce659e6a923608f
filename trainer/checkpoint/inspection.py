"""Which checkpoints there are, whether they are whole, and where damaged ones go.

Turns a directory of steps into their records, each proven to be what was written, or
an error that names the file. It refuses to know arrays and Orbax's reading: all of it
happens before either, in one process.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence

from etils import epath

from trainer import storage
from trainer.checkpoint.files import find_damage
from trainer.checkpoint.record import RECORD, Record, unseal
from trainer.checkpoint.sealing import MARKER
from trainer.config.errors import DamagedError, StorageError


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A damaged checkpoint that is not used.

    Attributes:
        step: Which one.
        damage: What is wrong with it.
        place: Where it is now.
    """

    step: int
    damage: str
    place: str

    def __str__(self) -> str:
        """Return the three in words."""
        return (
            f"step {self.step} is damaged and left out, in {self.place}: {self.damage}"
        )


def committed_steps(directory: epath.Path) -> list[int]:
    """Return the steps below `directory` that were committed, oldest first."""
    steps = [int(n) for n in storage.list_names(directory) if n.isdecimal()]
    if storage.is_local(directory):  # got their name when they were complete
        return sorted(steps)
    return sorted(s for s in steps if storage.exists(directory / str(s) / MARKER))


def choose(directory: epath.Path, step: int | None, *, steps: Sequence[int]) -> int:
    """Return `step`, or the newest, if it is among `steps`.

    Raises:
        StorageError: It is not.
    """
    if step is None and steps:
        return max(steps)
    if step in steps:
        return step
    kept = ", ".join(map(str, steps)) or "none"
    raise StorageError(
        key=str(directory),
        expected="a checkpoint" if step is None else f"a checkpoint of step {step}",
        received=f"checkpoints of steps: {kept}",
        fix="choose one of them, or train first",
    )


def check_newest(directory: epath.Path, step: int, *, latest: int | None) -> None:
    """Raise unless `step` comes after all that were saved.

    Raises:
        StorageError: It does not.
    """
    if latest is not None and step < latest:
        raise StorageError(
            key=str(directory / str(step)),
            expected=f"a step after {latest}, the newest checkpoint",
            received=f"step {step}",
            fix=f"continue from step {latest}, or use another run.name",
        )


def read_record(directory: epath.Path, step: int, *, steps: Sequence[int]) -> Record:
    """Return the record of a step.

    Args:
        directory: Parent of the steps.
        step: Which one.
        steps: All that there are, for the advice.

    Raises:
        DamagedError: It is not the one that was written.
    """
    place, fix = directory / str(step), way_out(directory, step, steps)
    if not storage.exists(place / RECORD):
        raise _damaged(place, f"{RECORD} is gone", fix)
    return unseal(storage.read_bytes(place / RECORD), where=str(place), fix=fix)


def check_step(directory: epath.Path, step: int, *, steps: Sequence[int]) -> Record:
    """Return the record of a step whose files are all as they were written.

    Raises:
        DamagedError: A file is not; it is named.
    """
    record = read_record(directory, step, steps=steps)
    place = directory / str(step)
    if flaws := find_damage(place, record["files"]):
        raise _damaged(place, flaws, way_out(directory, step, steps))
    return record


def whole_steps(
    directory: epath.Path, *, keep_last: int, leave_out: bool
) -> tuple[dict[int, Record], list[LeftOut]]:
    """Return the records of all steps, and what was left out and put aside.

    A bucket deletes file by file: what is damaged there and older than `keep_last` may
    be what a killed run was deleting, and is always left out.

    Raises:
        DamagedError: A step is damaged, and is not to be left out or the only one.
    """
    steps = committed_steps(directory)
    in_part = [] if storage.is_local(directory) else steps[:-keep_last]
    records: dict[int, Record] = {}
    damages: dict[int, DamagedError] = {}
    for step in reversed(steps):
        try:
            records[step] = check_step(directory, step, steps=steps)
        except DamagedError as damage:
            if not leave_out and step not in in_part:
                raise
            damages[step] = damage
    if damages and not records:
        raise damages[steps[-1]]
    left_out = [
        LeftOut(step, str(damage.received), put_aside(directory, step))
        for step, damage in damages.items()
    ]
    return records, left_out


def put_aside(directory: epath.Path, step: int) -> str:
    """Move a step out of the way, beside `directory`, and return its new place.

    Where nothing can be renamed it is copied first: killed in between, it is there
    twice, and still damaged where it was.
    """
    source = directory / str(step)
    aside = directory.parent / f"{directory.name}-damaged"
    taken = storage.list_names(aside)
    names = [str(step), *(f"{step}-{n}" for n in range(2, len(taken) + 3))]
    target = aside / next(name for name in names if name not in taken)
    if storage.is_local(directory):
        try:
            aside.mkdir(parents=True, exist_ok=True)
            shutil.move(str(source), str(target))
        except OSError as error:
            raise StorageError(
                key=str(source),
                expected=f"a damaged checkpoint that can be moved to {target}",
                received=f"{type(error).__name__}: {error}",
                fix="check the rights on it, or delete it and repeat the command",
            ) from error
    else:
        storage.upload(source, target)
        storage.remove(source / MARKER)  # from here on it counts as never written
        storage.remove(source)
    return str(target)


def way_out(directory: epath.Path, step: int, steps: Sequence[int]) -> str:
    """Return what to do when `step`, one of `steps`, is damaged."""
    place, others = directory / str(step), [other for other in steps if other != step]
    if not others:
        return f"delete {place} and repeat the command: it starts again"
    return (
        f"checkpoint.on_corrupt=previous takes step {max(others)} instead; or delete "
        f"{place}"
    )


def _damaged(place: epath.Path, flaws: str, fix: str) -> DamagedError:
    return DamagedError(
        key=str(place),
        expected="the files that were saved",
        received=flaws,
        fix=fix,
    )
