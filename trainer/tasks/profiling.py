"""A profile of a few steps: where their time goes, and what lies in memory.

Turns `trainer.profile` into a step that records itself while it is one of those steps.
It refuses to know what a step does.
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
    steps: tuple[int, int] | None,
    *,
    done: int,
    directory: epath.Path,
    say: Callable[[str], None],
) -> Iterator[Step]:
    """Yield the step, which writes a trace and a memory profile of `steps`.

    The primary process writes: a trace for xprof and Perfetto, and what was allocated
    after the last of the steps, for pprof. A run that ends before that writes what it
    has.

    Args:
        step_function: The step of a run.
        steps: First and last step to record; None records nothing.
        done: Steps that the run has done already.
        directory: Where the files go, such as `profile/` of the run's directory.
        say: Shows one line to the user.
    """
    if steps is None or not is_primary():
        yield step_function
        return
    recorder = _Recorder(step_function, steps, done, directory, say)
    try:
        yield recorder
    finally:
        recorder.stop()


class _Recorder:
    """Counts the steps and records those that are asked for."""

    def __init__(
        self,
        step_function: Step,
        steps: tuple[int, int],
        done: int,
        directory: epath.Path,
        say: Callable[[str], None],
    ) -> None:
        self._step_function, self._steps, self._done = step_function, steps, done
        self._directory, self._say = directory, say
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def __call__(self, state: Any, *inputs: Any) -> Any:  # noqa: ANN401  # any step's
        self._done += 1
        first, last = self._steps
        if not first <= self._done <= last:
            return self._step_function(state, *inputs)
        if self._scratch is None:
            jax.block_until_ready(state)  # the step before is not part of it
            self._scratch = tempfile.TemporaryDirectory(prefix="trainer-profile-")
            jax.profiler.start_trace(self._scratch.name, create_perfetto_trace=True)
        with jax.profiler.StepTraceAnnotation("train", step_num=self._done):
            result = self._step_function(state, *inputs)
        if self._done == last:
            jax.block_until_ready(result)
            self.stop()
        return result

    def stop(self) -> None:
        """Write what was recorded, once."""
        if self._scratch is None:
            return
        scratch, self._scratch = self._scratch, None
        self._steps = (0, 0)
        with scratch:
            jax.profiler.stop_trace()
            memory = f"{scratch.name}/{MEMORY}"
            jax.profiler.save_device_memory_profile(memory)
            storage.upload(scratch.name, self._directory)
        self._say(
            f"profile: {self._directory}; xprof --logdir shows it, ui.perfetto.dev its "
            f"perfetto_trace.json.gz, pprof its {MEMORY}"
        )
