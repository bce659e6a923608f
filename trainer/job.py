"""One job, up to JAX's import: launched elsewhere, or begun in this process.

Turns a composed configuration into the exit code of `launch` or of `trainer.run`. What
JAX reads at its import comes before it, and so does the lock of the run's directory:
who comes second leaves within a second. It refuses to know the command line.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator, Sequence

from trainer.config.checks import find_problems, raise_problems
from trainer.config.interruption import shielded
from trainer.config.schema import RunConfig
from trainer.config.simulated import prepare_devices


def run_job(config: RunConfig, words: Sequence[str]) -> int:
    """Run or launch a job and return its exit code.

    Args:
        config: What to do.
        words: What was typed for it.

    Raises:
        RunError: With the message and exit code for the user.
    """
    raise_problems(find_problems(config))
    if config.launch.name != "none":
        from launch.start import start

        return start(config, words)
    prepare_devices(config)
    from trainer.tasks.run_directory import held_early

    with held_early(config):
        with shielded(), _quick_imports():
            from trainer.run import run
        return run(config, words)


@contextlib.contextmanager
def _quick_imports() -> Iterator[None]:
    """Import in two thirds of the time, 1.3 s and not 2.0 on two cores.

    Modules are no garbage, and looking for some among them takes a quarter of it. Keras
    imports matplotlib for pictures that nobody draws here, and goes without where there
    is none; what draws a run's curves imports it at the end.
    """
    was_collecting, drawing = gc.isenabled(), "matplotlib"
    is_hidden = drawing not in sys.modules
    gc.disable()
    if is_hidden:
        sys.modules[drawing] = None  # type: ignore[assignment]  # "there is none"
    try:
        yield
    finally:
        if is_hidden:
            del sys.modules[drawing]
        if was_collecting:
            gc.enable()
