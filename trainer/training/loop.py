"""The loop: step, tell, evaluate, save, until the last step or a request to stop.

Turns a compiled step and a stream of batches into a trained state. Metrics are read
one step late, so that the host never waits for the step it has just started, and the
next batch goes to the devices meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from trainer.config.errors import NumericsError
from trainer.training.step import Arrays, StepSums, TrainState
from trainer.training.stop import StopRequest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """What has been done: kept in every checkpoint.

    Attributes:
        step: Finished updates.
        position: Position of the data after them, JSON-able.
        rows_seen: Rows trained on.
        tokens_seen: Real tokens trained on, padding left out.
    """

    step: int = 0
    position: Any = None
    rows_seen: int = 0
    tokens_seen: int = 0


@dataclasses.dataclass(frozen=True)
class PlacedBatch:
    """A global batch on the devices, and what it counts for."""

    arrays: Arrays
    position: Any
    rows: int
    lengths: Sequence[int]
    """Positions of every row, or piece of one, in the batch."""

    @property
    def tokens(self) -> int:
        """Positions that are no padding."""
        return sum(self.lengths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rhythm:
    """How often what happens, in steps; 0 means never.

    `recorded` is the first and the last step of a profile, or None.
    """

    num_train_steps: int
    eval_every_steps: int
    log_every_steps: int
    checkpoint_every_steps: int
    recorded: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What a step held and how long it took, for numbers that follow from both."""

    lengths: Sequence[int]
    loss_tokens: int
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls; none of it changes the state.

    Attributes:
        gauge: Returns more named numbers for a step that is logged.
        log: Gets a step and its named numbers.
        evaluate: Returns named numbers for a state.
        save: Keeps a state with its progress and, where it was measured at this step,
            the held-out loss.
        start_recording: Begins a profile at a state.
        stop_recording: Writes the profile of the steps since.
    """

    gauge: Callable[[StepFacts], Mapping[str, float]]
    log: Callable[[int, Mapping[str, float]], None]
    evaluate: Callable[[TrainState], Mapping[str, float]]
    save: Callable[[TrainState, Progress, float | None], None]
    start_recording: Callable[[TrainState], None] = lambda state: None
    stop_recording: Callable[[], None] = lambda: None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Where the loop ended, and whether it was asked to."""

    state: TrainState
    progress: Progress
    was_stopped: bool


def train(
    state: TrainState,
    frozen: Arrays,
    step_function: Callable[[TrainState, Arrays, Arrays], tuple[TrainState, StepSums]],
    batches: Iterator[PlacedBatch],
    *,
    progress: Progress,
    rhythm: Rhythm,
    hooks: Hooks,
    stop: StopRequest,
) -> Outcome:
    """Train from `progress.step` to the last step.

    Raises:
        NumericsError: A loss is not finite; nothing of that step was saved.
    """
    if progress.step == 0 and rhythm.eval_every_steps:
        _evaluate(0, state, hooks)
    batches = _Timed(batches)
    clock = _Clock(hooks, rhythm, batches)
    saved_step, upcoming = progress.step, None
    first, last = _recorded(rhythm, progress.step)
    while progress.step < rhythm.num_train_steps and not stop.is_asked():
        if progress.step + 1 == first:
            with clock.paused():
                hooks.start_recording(state)
        batch = upcoming or next(batches)
        state, sums = step_function(state, frozen, batch.arrays)
        progress = Progress(
            step=progress.step + 1,
            position=batch.position,
            rows_seen=progress.rows_seen + batch.rows,
            tokens_seen=progress.tokens_seen + batch.tokens,
        )
        is_last = progress.step == rhythm.num_train_steps
        # on the devices before this step ends; its position is kept when it was used
        upcoming = None if is_last else next(batches)
        clock.dispatched(progress, batch, sums)
        if progress.step == last:
            with clock.paused():
                hooks.stop_recording()
        eval_loss = None
        if _is_due(progress.step, rhythm.eval_every_steps, is_last):
            with clock.paused():
                eval_loss = _evaluate(progress.step, state, hooks)
        if _is_due(progress.step, rhythm.checkpoint_every_steps, is_last):
            with clock.paused():
                hooks.save(state, progress, eval_loss)
            saved_step = progress.step
    clock.settle()
    if saved_step != progress.step:
        hooks.save(state, progress, None)
    was_stopped = progress.step < rhythm.num_train_steps
    return Outcome(state, progress, was_stopped)


def _is_due(step: int, every: int, is_last: bool) -> bool:
    return every > 0 and (step % every == 0 or is_last)


def _recorded(rhythm: Rhythm, done: int) -> tuple[int, int]:
    """Return the first and last step to record of those to do; zeros for none."""
    first, last = rhythm.recorded or (0, 0)
    return (max(first, done + 1), last) if last > done else (0, 0)


def _evaluate(step: int, state: TrainState, hooks: Hooks) -> float | None:
    values = hooks.evaluate(state)
    hooks.log(step, values)
    return values.get("eval/loss")


class _Timed:
    """Batches, and how long the host was busy with getting them."""

    def __init__(self, batches: Iterator[PlacedBatch]) -> None:
        self._batches, self._seconds = batches, 0.0

    def __iter__(self) -> _Timed:
        return self

    def __next__(self) -> PlacedBatch:
        start = time.perf_counter()
        batch = next(self._batches)
        self._seconds += time.perf_counter() - start
        return batch

    def take(self) -> float:
        """Return the seconds since this was asked the last time."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class _Clock:
    """Reads the metrics of a step when the next one runs, and times the gap."""

    def __init__(self, hooks: Hooks, rhythm: Rhythm, batches: _Timed) -> None:
        self._batches = batches
        self._hooks = hooks
        self._every = rhythm.log_every_steps
        self._last_step = rhythm.num_train_steps
        self._pending: tuple[Progress, PlacedBatch, StepSums] | None = None
        self._resume()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Read what is under way first; what is done here is no step's time."""
        self.settle()
        yield
        self._resume()

    def _resume(self) -> None:
        self._since = time.perf_counter()
        self._batches.take()

    def dispatched(
        self, progress: Progress, batch: PlacedBatch, sums: StepSums
    ) -> None:
        """Take the sums of a step that has just been started."""
        previous, self._pending = self._pending, (progress, batch, sums)
        if previous is not None:
            self._read(*previous)

    def settle(self) -> None:
        """Wait for the step that was started last."""
        previous, self._pending = self._pending, None
        if previous is not None:
            self._read(*previous)

    def _read(self, progress: Progress, batch: PlacedBatch, sums: StepSums) -> None:
        loss_tokens = float(sums.loss_tokens)
        loss = float(sums.loss_sum) / max(loss_tokens, 1.0)
        minimised = float(sums.minimised_sum) / max(loss_tokens, 1.0)
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        waited = self._batches.take()
        norm = float(sums.grad_norm)
        if not all(map(math.isfinite, (loss, minimised, norm))):
            raise NumericsError(
                key="train/loss, train/grad_norm",
                expected="finite numbers",
                received=f"{loss} and {norm} at step {progress.step}",
                fix="a lower optimizer.learning_rate, or preset.dtype=float32",
            )
        others = {} if minimised == loss else {"train/minimised_loss": minimised}
        is_last = progress.step == self._last_step
        if progress.step == 1 or _is_due(progress.step, self._every, is_last):
            self._hooks.log(
                progress.step,
                {
                    "train/loss": loss,
                    **others,
                    "train/learning_rate": float(sums.learning_rate),
                    "train/grad_norm": norm,
                    "train/step_seconds": seconds,
                    "train/rows_per_second": batch.rows / seconds,
                    "train/tokens_per_second": batch.tokens / seconds,
                    "train/loss_tokens_per_second": loss_tokens / seconds,
                    "train/loss_tokens": loss_tokens,
                    "train/rows_seen": progress.rows_seen,
                    "train/tokens_seen": progress.tokens_seen,
                    # the device may be at work meanwhile: it waits for no larger share
                    "train/data_wait_share": min(waited / seconds, 1.0),
                    **self._hooks.gauge(_facts(batch, loss_tokens, seconds)),
                },
            )


def _facts(batch: PlacedBatch, loss_tokens: float, seconds: float) -> StepFacts:
    return StepFacts(
        lengths=batch.lengths, loss_tokens=round(loss_tokens), seconds=seconds
    )
