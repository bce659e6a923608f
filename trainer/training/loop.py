"""The loop: step, tell, evaluate, save, until the last step or a request to stop.

Turns a compiled step and a stream of batches into a trained state. Metrics are read
one step late, so that the host never waits for the step it has just started, and the
next batch goes to the devices meanwhile. A step that the devices skipped is tried again
with the next batch: steps are updates, and a checkpoint of one is always the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trainer.config.errors import NumericsError
from trainer.training.clock import Clock, Timed
from trainer.training.progress import (
    Hooks,
    Outcome,
    PlacedBatch,
    Progress,
    Rhythm,
    SkippedStep,
    StepFacts,
)
from trainer.training.step import StepSums, TrainState
from trainer.training.stop import StopRequest
from trainer.training.update_group import Arrays

__all__ = [
    "Hooks",
    "Outcome",
    "PlacedBatch",
    "Progress",
    "Rhythm",
    "SkippedStep",
    "StepFacts",
    "train",
]


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
        NumericsError: Too many steps in a row were skipped. What they would have
            changed is as it was, and is saved.
    """
    if progress.step == 0 and rhythm.eval_every_steps:
        _evaluate(0, state, hooks)
    batches = Timed(batches)
    clock = Clock(progress, hooks, rhythm, batches)
    saved_step, upcoming = progress.step, None
    first, last = _recorded(rhythm, progress.step)
    while clock.done.step < rhythm.num_train_steps and not stop.is_asked():
        if clock.next_step == first and clock.reaches(first - 1):
            first = 0  # begun, even if the devices skip this step
            with clock.paused():
                hooks.start_recording(state)
        batch = upcoming or next(batches)
        state, sums = step_function(state, frozen, batch.arrays)
        # on the devices before this step ends; its position is kept when it was used
        is_last = clock.next_step == rhythm.num_train_steps
        upcoming = None if is_last else next(batches)
        step = clock.dispatched(batch, sums)
        if step == last and clock.reaches(last):
            with clock.paused():
                hooks.stop_recording()
        if step is not None and _keep(step, state, clock, rhythm, hooks, stop=stop):
            saved_step = step
        if clock.failure is not None:
            clock.settle()
            older = hooks.rewind(state, clock.done)
            if older is None:
                break
            state, progress = older
            clock.go_back(progress)
            saved_step = progress.step
    clock.settle()
    if saved_step != clock.done.step:
        hooks.save(state, clock.done, None)
    if clock.failure is not None:
        raise _too_many_skipped(clock.failure, clock.done)
    was_stopped = clock.done.step < rhythm.num_train_steps
    return Outcome(state, clock.done, was_stopped)


def _keep(
    step: int,
    state: TrainState,
    clock: Clock,
    rhythm: Rhythm,
    hooks: Hooks,
    *,
    stop: StopRequest,
) -> bool:
    """Evaluate and save a step that is due, if it was applied; return if it saved."""
    is_last = step == rhythm.num_train_steps
    is_evaluated = _is_due(step, rhythm.eval_every_steps, is_last)
    is_due = _is_due(step, rhythm.checkpoint_every_steps, is_last)
    is_saved = is_due or stop.wants_save
    if not (is_evaluated or is_saved or is_last) or not clock.reaches(step):
        return False
    loss = None
    with clock.paused():
        if is_evaluated:
            loss = _evaluate(step, state, hooks)
        if is_saved:
            hooks.save(state, clock.done, loss)
            stop.saved()
    return is_saved


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


def _too_many_skipped(skipped: SkippedStep, done: Progress) -> NumericsError:
    numbers, ease = "finite numbers", "preset.dtype=float32"
    if skipped.is_spike:
        numbers, ease = "no spikes", "a larger trainer.skip_spikes"
    good = "none is kept yet"
    if done.step:
        when = "before" if done.step < skipped.step else "behind it"
        good = (
            f"checkpoint {done.step} is from {when}; delete it to go on from an older"
        )
    return NumericsError(
        key="train/loss, train/grad_norm",
        expected=f"{numbers}, but for fewer than trainer.max_skipped_steps in a row",
        received=f"{skipped.loss} and {skipped.grad_norm} at step {skipped.step}, "
        f"{skipped.in_a_row} in a row",
        fix=f"a lower optimizer.learning_rate, {ease}, or other rows (events.jsonl "
        f"names them); {good}",
    )
