"""Programs compiled before the first step: one for each length of a batch to come.

Turns functions, and the lengths of the batches that they will get, into compiled
programs, which the functions find again when such a batch is there. It refuses to know
what they compute.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from trainer.data.batches import TrainingStream
from trainer.data.lengths import lengths_to_come
from trainer.data.sharing import Share
from trainer.distribution.joining import advance
from trainer.model.state import Arrays
from trainer.tasks.feed import first_position
from trainer.tasks.kept_programs import Program
from trainer.tasks.program import batch_shapes
from trainer.tasks.session import Session
from trainer.tasks.sharing import share_rows
from trainer.training.loop import Progress
from trainer.training.step import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ahead:
    """A function that is to be compiled, and for what.

    Attributes:
        name: Of the program, for people and for `events.jsonl`.
        function: The function.
        arguments: Returns its arguments for batches of a length; shapes will do.
        lengths: Of the batches that it will get.
    """

    name: str
    function: Program
    arguments: Callable[[int], tuple[Any, ...]]
    lengths: Sequence[int]


def step_ahead(
    session: Session,
    stream: TrainingStream,
    step: Program,
    state: TrainState,
    frozen: Arrays,
    *,
    progress: Progress,
) -> Ahead:
    """Return the step with the lengths that are still to come; all processes call it.

    Args:
        session: What the step was built from.
        stream: The training batches.
        step: The step.
        state: Its first argument.
        frozen: Its second.
        progress: What has been done.
    """
    lengths = lengths_to_come(
        stream,
        first_position(progress),
        num_steps=session.config.trainer.num_train_steps - progress.step,
        share=None if stream.pack else _watched(share_rows()),
    )
    return Ahead(
        name="step",
        function=step,
        arguments=lambda length: (state, frozen, batch_shapes(session, length)),
        lengths=lengths,
    )


def _watched(share: Share | None) -> Share | None:
    """Return a share whose rounds the watch sees: many rows take a while to measure."""
    if share is None:
        return None

    def tell(number: int, value: Any) -> list[Any]:  # noqa: ANN401  # JSON
        advance(f"the lengths of rows, round {number}")
        return share.tell(number, value)

    return dataclasses.replace(share, tell=tell)


def compile_ahead(
    programs: Sequence[Ahead],
    *,
    tell: Callable[[str, dict[str, Any]], None],
    say: Callable[[str], None],
) -> None:
    """Compile every program for all of its lengths.

    Args:
        programs: What to compile.
        tell: Records an event for each program.
        say: Shows a line where there is more than one length.
    """
    for program in programs:
        since = time.perf_counter()
        # the longest first: what does not fit is known at once
        for length in sorted(program.lengths, reverse=True):
            advance(f"the program of the {program.name} for {length} tokens")
            program.function.prepare(*program.arguments(length))
        seconds = time.perf_counter() - since
        lengths = sorted(program.lengths)
        facts = {"program": program.name, "lengths": lengths, "seconds": seconds}
        tell("compiled", facts)
        if len(lengths) > 1:
            words = ", ".join(map(str, lengths[:-1]))
            say(
                f"{program.name} compiled for sequences of {words} and {lengths[-1]} "
                f"tokens in {seconds:.1f} s"
            )
