"""A profile of a few steps: where their time goes, and what lies in memory.

Turns `trainer.profile` into a recorder that the loop starts and stops between steps. It
refuses to know what a step does, and which steps are recorded.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
from etils import epath

from trainer import storage
from trainer.distribution.processes import is_primary

MEMORY = "memory.prof"

Step = Callable[..., Any]


@contextlib.contextmanager
def profiled(
    step_function: Step,
    *,
    done: int,
    directory: epath.Path,
    say: Callable[[str], None],
) -> Iterator[Recorder]:
    """Yield a recorder around the step; what it holds at the end is written.

    Args:
        step_function: The step of a run.
        done: Steps that the run has done already.
        directory: Where the files go, such as `profile/` of the run's directory.
        say: Shows one line to the user.
    """
    recorder = Recorder(step_function, done, directory, say)
    try:
        yield recorder
    finally:
        recorder.stop()


class Recorder:
    """The step, named in a trace while one is recorded.

    The primary process writes: a trace for xprof and Perfetto, and what was allocated
    after the last of the steps, for pprof.
    """

    def __init__(
        self,
        step_function: Step,
        done: int,
        directory: epath.Path,
        say: Callable[[str], None],
    ) -> None:
        self._step_function, self._done = step_function, done
        self._directory, self._say = directory, say
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def __call__(self, state: Any, *inputs: Any) -> Any:  # noqa: ANN401  # any step's
        """Do one step."""
        self._done += 1
        if self._scratch is None:
            return self._step_function(state, *inputs)
        with jax.profiler.StepTraceAnnotation("train", step_num=self._done):
            return self._step_function(state, *inputs)

    def start(self, state: Any) -> None:  # noqa: ANN401  # any step's
        """Record from here on, once `state` is there."""
        if not is_primary():
            return
        jax.block_until_ready(state)  # what makes it is not part of the trace
        self._scratch = tempfile.TemporaryDirectory(prefix="trainer-profile-")
        jax.profiler.start_trace(self._scratch.name, create_perfetto_trace=True)

    def stop(self) -> None:
        """Write what was recorded, if anything was; the steps are over."""
        if self._scratch is None:
            return
        scratch, self._scratch = self._scratch, None
        with scratch:
            jax.profiler.stop_trace()
            memory = f"{scratch.name}/{MEMORY}"
            jax.profiler.save_device_memory_profile(memory)
            storage.upload(scratch.name, self._directory)
        self._say(
            f"profile: {self._directory}; xprof --logdir shows it, ui.perfetto.dev its "
            f"perfetto_trace.json.gz, pprof its {MEMORY}"
        )
