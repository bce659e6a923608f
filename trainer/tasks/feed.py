"""The training batches of a run, on its devices.

Turns the stream of rows into global batches that a step takes, from where a run stands.
It refuses to know when a batch is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator

from trainer.data.batches import TrainingStream
from trainer.data.order import Position
from trainer.distribution.rows import local_sequences
from trainer.tasks.session import Assembly
from trainer.tasks.sharing import share_encoding
from trainer.training.loop import PlacedBatch, Progress
from trainer.training.step import place_batch


def first_position(progress: Progress) -> Position | None:
    """Return where the next batch begins; None is the beginning."""
    return Position(**progress.position) if progress.position else None


def placed_batches(
    parts: Assembly, stream: TrainingStream, progress: Progress
) -> Generator[PlacedBatch, None, None]:
    """Yield batches for ever, from where a run stands; each process places its part."""
    mesh, microbatches = parts.mesh, parts.microbatches
    size = parts.config.trainer.global_batch_size
    here = local_sequences(size, mesh, microbatches=microbatches)
    shared = share_encoding(stream, needed=len(here))
    for step in shared.batches(first_position(progress), rows=here):
        yield PlacedBatch(
            arrays=place_batch(
                step.batch, mesh, microbatches=microbatches, sequences=size
            ),
            position=dataclasses.asdict(step.position),
            rows=step.facts.rows,
            lengths=step.facts.lengths,
            row_numbers=step.row_numbers,
        )
