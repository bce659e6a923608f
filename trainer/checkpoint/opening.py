"""What stands before the first save: a directory that is looked through, and Orbax.

Turns a place into the losses of the steps there, proven whole, and into the manager
that writes further ones. It refuses to know what is saved and when.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from trainer.checkpoint import record, room
from trainer.checkpoint.inspection import LeftOut, whole_steps
from trainer.checkpoint.retention import DELETING, LatestAndBest, sweep
from trainer.checkpoint.sealing import sealed_paths
from trainer.checkpoint.shared import check_shared
from trainer.distribution.exchange import from_primary

ARRAYS = "arrays"
"""Name of what Orbax writes within a step."""


def prepare(
    directory: epath.Path, *, keep_last: int, leave_out: bool
) -> tuple[dict[int, float | None], list[LeftOut]]:
    """Make a directory, and return the losses of its steps and what was left out.

    Every process calls it; process 0 looks, and deletes what a killed run left.

    Raises:
        StorageError: The directory cannot be used.
        DamagedError: A step is damaged, and is not to be left out or the only one.
    """

    def look_through() -> dict[str, Any]:
        sweep(directory)
        records, left_out = whole_steps(
            directory, keep_last=keep_last, leave_out=leave_out
        )
        losses = [[step, record.loss(facts)] for step, facts in records.items()]
        return {"losses": losses, "left_out": [vars(one) for one in left_out]}

    with room.explained(directory, "a directory for checkpoints to write"):
        directory.mkdir(parents=True, exist_ok=True)
    check_shared(directory)
    found = from_primary("the checkpoints", look_through)
    return dict(found["losses"]), [LeftOut(**one) for one in found["left_out"]]


def open_manager(
    directory: epath.Path,
    *,
    read_only: bool,
    keeps: LatestAndBest,
    seal: Callable[[int, epath.Path, bytes], None],
) -> ocp.CheckpointManager:
    """Return what writes, reads and deletes steps.

    Args:
        directory: Parent of the steps.
        read_only: Nothing is written or deleted.
        keeps: Says which steps stay.
        seal: Called with a step, its files and its marker before each commit.

    Raises:
        StorageError: The directory cannot be used.
    """
    if read_only:  # Orbax 0.12 warns three times of what that means
        logging.getLogger("absl").setLevel(logging.ERROR)
    with room.explained(directory, "a directory of checkpoints"):
        return ocp.CheckpointManager(
            directory,
            options=ocp.CheckpointManagerOptions(
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
                preservation_policy=keeps,
                todelete_subdir=DELETING,
                temporary_path_class=sealed_paths(directory, seal),
            ),
            item_handlers={ARRAYS: ocp.StandardCheckpointHandler()},
        )
