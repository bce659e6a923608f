"""What the loop is told, what it tells, and where it stands.

Turns a step and its batch into facts for whoever logs, saves, or looks for rows. It
refuses to know when any of it happens.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainer.training.step import TrainState
from trainer.training.update_group import Arrays


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """What has been done: kept in every checkpoint.

    It is that of the last update, and does not know of steps that were skipped since:
    whoever goes on meets their rows again, and skips them again.

    Attributes:
        step: Finished updates.
        position: Position of the data after them, JSON-able.
        rows_seen: Rows trained on.
        tokens_seen: Real tokens trained on, padding left out.
        skipped_steps: Batches that were left out before the last update.
        rewound_to: The step that the run last went back to, None if it never did.
    """

    step: int = 0
    position: Any = None
    rows_seen: int = 0
    tokens_seen: int = 0
    skipped_steps: int = 0
    rewound_to: int | None = None


@dataclasses.dataclass(frozen=True)
class PlacedBatch:
    """A global batch on the devices, and what it counts for."""

    arrays: Arrays
    position: Any
    rows: int
    lengths: Sequence[int]
    """Positions of every row, or piece of one, in the batch."""
    row_numbers: Sequence[int] = ()
    """Numbers, in the data, of the rows that it has pieces of."""

    @property
    def tokens(self) -> int:
        """Positions that are no padding."""
        return sum(self.lengths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkippedStep:
    """A batch that changed nothing, and why.

    Attributes:
        step: The step that was tried with it; the next batch is tried for it again.
        batch: The batch.
        loss: Mean loss in nats.
        grad_norm: Global norm of the gradient.
        in_a_row: Skipped since the last update, this one included.
        in_all: Skipped in the whole run, this one included.
    """

    step: int
    batch: PlacedBatch
    loss: float
    grad_norm: float
    in_a_row: int
    in_all: int

    @property
    def is_spike(self) -> bool:
        """Whether its numbers are finite, and too large for `trainer.skip_spikes`."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rhythm:
    """How often what happens, in steps; 0 means never.

    `recorded` is the first and the last step of a profile, or None.
    `max_skipped_steps` in a row are too many.
    """

    num_train_steps: int
    eval_every_steps: int
    log_every_steps: int
    checkpoint_every_steps: int
    max_skipped_steps: int
    recorded: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What a step held and how long it took, for numbers that follow from both."""

    lengths: Sequence[int]
    loss_tokens: int
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls; only `rewind` changes the state.

    Attributes:
        gauge: Returns more named numbers for a step that is logged.
        log: Gets a step and its named numbers.
        evaluate: Returns named numbers for a state.
        save: Keeps a state with its progress and, where it was measured at this step,
            the held-out loss.
        skipped: Gets a step that was not applied.
        rewind: Gets the state and progress after which too many steps were skipped;
            returns those of an older checkpoint, or None to end the run.
        start_recording: Begins a profile at a state.
        stop_recording: Writes the profile of the steps since.
    """

    gauge: Callable[[StepFacts], Mapping[str, float]]
    log: Callable[[int, Mapping[str, float]], None]
    evaluate: Callable[[TrainState], Mapping[str, float]]
    save: Callable[[TrainState, Progress, float | None], None]
    skipped: Callable[[SkippedStep], None]
    rewind: Callable[[TrainState, Progress], tuple[TrainState, Progress] | None]
    start_recording: Callable[[TrainState], None] = lambda state: None
    stop_recording: Callable[[], None] = lambda: None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Where the loop ended, and whether it was asked to."""

    state: TrainState
    progress: Progress
    was_stopped: bool
