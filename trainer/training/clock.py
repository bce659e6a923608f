"""Reads what a step tells when the next one runs: numbers, times, whether it counted.

Turns the sums of steps that were started into metrics and into the progress of the
steps that were applied. It refuses to know what follows: evaluation, saving, an end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator

import jax

from trainer.training.progress import (
    Hooks,
    PlacedBatch,
    Progress,
    Rhythm,
    SkippedStep,
    StepFacts,
)
from trainer.training.step import StepSums


class Timed:
    """Batches, and how long the host was busy with getting them."""

    def __init__(self, batches: Iterator[PlacedBatch]) -> None:
        self._batches, self._seconds = batches, 0.0

    def __iter__(self) -> Timed:
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


class Clock:
    """Reads the metrics of a step when the next one runs, and times the gap.

    Attributes:
        done: Progress of the last step that was read and applied.
        failure: The step with which too many in a row were skipped, None before.
    """

    def __init__(
        self, progress: Progress, hooks: Hooks, rhythm: Rhythm, batches: Timed
    ) -> None:
        self.done = progress
        self.failure: SkippedStep | None = None
        self._batches, self._hooks, self._rhythm = batches, hooks, rhythm
        self._pending: tuple[PlacedBatch, StepSums] | None = None
        self._skipped_steps = progress.skipped_steps
        self._in_a_row = 0
        self._resume()

    @property
    def next_step(self) -> int:
        """The step that is started next, if the one under way is applied."""
        return self.done.step + 1 + (self._pending is not None)

    def reaches(self, step: int) -> bool:
        """Return, having waited, whether `step` was applied and is the newest."""
        self.settle()
        return self.done.step == step

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Read what is under way first; what is done here is no step's time."""
        self.settle()
        yield
        self._resume()

    def dispatched(self, batch: PlacedBatch, sums: StepSums) -> int | None:
        """Take the sums of a step that has just been started; return which one it is.

        That holds if it is applied; None where it is known that it was not: after a
        skipped step the next is waited for, so that none follows the last of too many.
        """
        previous, self._pending = self._pending, (batch, sums)
        if previous is not None:
            self._read(*previous)
        step = self.done.step + 1
        return None if self._in_a_row and not self.reaches(step) else step

    def settle(self) -> None:
        """Wait for the step that was started last."""
        previous, self._pending = self._pending, None
        if previous is not None:
            self._read(*previous)

    def go_back(self, progress: Progress) -> None:
        """Go on from an older progress; what was skipped until now still counts."""
        self.done, self.failure, self._in_a_row = progress, None, 0
        self._resume()

    def _resume(self) -> None:
        self._since = time.perf_counter()
        self._batches.take()

    def _read(self, batch: PlacedBatch, sums: StepSums) -> None:
        sums = jax.device_get(sums)  # one transfer and not one for each number
        loss = float(sums.loss_sum) / max(float(sums.loss_tokens), 1.0)
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        waited = self._batches.take()
        if not sums.is_applied:
            self._skip(batch, loss=loss, grad_norm=float(sums.grad_norm))
            return
        self._in_a_row = 0
        self.done = dataclasses.replace(
            self.done,
            step=self.done.step + 1,
            position=batch.position,
            rows_seen=self.done.rows_seen + batch.rows,
            tokens_seen=self.done.tokens_seen + batch.tokens,
            skipped_steps=self._skipped_steps,
        )
        if self._is_logged(self.done.step):
            self._log(batch, sums, loss=loss, seconds=seconds, waited=waited)

    def _skip(self, batch: PlacedBatch, *, loss: float, grad_norm: float) -> None:
        self._in_a_row += 1
        self._skipped_steps += 1
        skipped = SkippedStep(
            step=self.done.step + 1,
            batch=batch,
            loss=loss,
            grad_norm=grad_norm,
            in_a_row=self._in_a_row,
            in_all=self._skipped_steps,
        )
        self._hooks.skipped(skipped)
        if self._in_a_row >= self._rhythm.max_skipped_steps:
            self.failure = self.failure or skipped

    def _is_logged(self, step: int) -> bool:
        every, last = self._rhythm.log_every_steps, self._rhythm.num_train_steps
        return step in (1, last) or (every > 0 and step % every == 0)

    def _log(
        self,
        batch: PlacedBatch,
        sums: StepSums,
        *,
        loss: float,
        seconds: float,
        waited: float,
    ) -> None:
        tokens = float(sums.loss_tokens)
        minimised = float(sums.minimised_sum) / max(tokens, 1.0)
        others = {} if minimised == loss else {"train/minimised_loss": minimised}
        facts = StepFacts(
            lengths=batch.lengths, loss_tokens=round(tokens), seconds=seconds
        )
        self._hooks.log(
            self.done.step,
            {
                "train/loss": loss,
                **others,
                "train/learning_rate": float(sums.learning_rate),
                "train/grad_norm": float(sums.grad_norm),
                "train/step_seconds": seconds,
                "train/rows_per_second": batch.rows / seconds,
                "train/tokens_per_second": batch.tokens / seconds,
                "train/loss_tokens_per_second": tokens / seconds,
                "train/loss_tokens": tokens,
                "train/rows_seen": self.done.rows_seen,
                "train/tokens_seen": self.done.tokens_seen,
                "train/skipped_steps": self.done.skipped_steps,
                # the device may be at work meanwhile: it waits for no larger share
                "train/data_wait_share": min(waited / seconds, 1.0),
                **self._hooks.gauge(facts),
            },
        )
