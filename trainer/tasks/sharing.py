"""What the processes of a run share: its directory, and the encoding of its rows.

Turns the first process's lock into one of all, and a stream that encodes everything
into one that encodes a part, where that is less work.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from trainer.data.batches import TrainingStream
from trainer.data.opening import TrainingData, open_sources
from trainer.data.sources import Share
from trainer.distribution.exchange import (
    agree,
    channel,
    check_same,
    from_primary,
    gather,
)
from trainer.distribution.processes import process_count, process_index
from trainer.tasks.run_directory import RunDirectory, held
from trainer.tasks.session import Session


@contextlib.contextmanager
def held_by_primary(directory: RunDirectory, **options: str) -> Iterator[None]:
    """Hold a directory as `held` does, in the first process for all of the run.

    Raises:
        RunError: What refused the first process; in every process.
    """
    with contextlib.ExitStack() as lock:
        hold = held(directory, **options)
        from_primary("the lock", lambda: lock.enter_context(hold))
        yield


def open_shared_data(session: Session) -> TrainingData:
    """Open the same rows in all processes; each reads a part of them to check it.

    Raises:
        RunError: What any process met, in all of them.
    """
    config = session.config.data
    sources = agree("the files", lambda: open_sources(config))
    check_same(
        "the files", {f"{n} rows, sha256": d for n, d in sources.digests.items()}
    )
    share = share_rows()
    data = agree("the rows", lambda: session.open_data(sources, share))
    check_same("data and vocabulary", {"data fingerprint": data.fingerprint})
    return data


def share_encoding(stream: TrainingStream, *, needed: int) -> TrainingStream:
    """Return a stream of the same batches, encoded together where that is less work.

    A process encodes its share of the rows to learn their lengths, and what is missing
    of the sequences that it needs. On a mesh whose `model` axis spans all processes
    they need the same sequences: each encodes all of them, and nobody waits.

    Args:
        stream: Batches of which a process builds some sequences.
        needed: Sequences of a global batch that this process builds.
    """
    needed = max(gather("sequences of a process", needed))
    if process_count() == 1 or needed == stream.global_batch_size:
        return stream
    return dataclasses.replace(stream, share=share_rows())


def share_rows() -> Share | None:
    """Return a part of the rows for each process; None where there is only one."""
    if process_count() == 1:
        return None
    tell = channel("lengths of rows")
    return Share(process_index(), process_count(), tell)
