"""A run that is told to stop: what it keeps until then, and how it ends.

Turns a step into one after which there is something to save, and a stopped run into its
exit code. It refuses to know how signals come and how a state is saved.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from etils import epath

from trainer.config.ending import STOPPED_BY_USER
from trainer.config.errors import Preempted
from trainer.training.stop import StopRequest

Arguments = ParamSpec("Arguments")
Stepped = TypeVar("Stepped")


def keeping(
    step: Callable[Arguments, Stepped], stop: StopRequest
) -> Callable[Arguments, Stepped]:
    """Return the step, after which a signal waits for what has to be saved.

    The first call may compile for minutes, before there is anything.
    """

    def step_and_keep(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Stepped:
        stepped = step(*args, **kwargs)
        stop.keep()
        return stepped

    return step_and_keep


def end_stopped(
    stop: StopRequest,
    step: int,
    *,
    directory: epath.Path,
    num_train_steps: int,
    say: Callable[[str], None],
) -> int:
    """Return the exit code of a run that was stopped, and saved, after a step.

    Raises:
        Preempted: The machine is taken away.
    """
    text = f"saved at step {step}: the same command goes on from there"
    if stop.signal == signal.SIGTERM:
        raise Preempted(
            key=str(directory),
            expected=f"{num_train_steps} steps",
            received="SIGTERM",
            fix=text,
        )
    say(text)
    return STOPPED_BY_USER
