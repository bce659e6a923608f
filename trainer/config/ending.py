"""How a command ends: an exit code, and one screen on stderr when it went wrong.

Turns whatever a call raises into the code that DESIGN promises. Tracebacks are for
`debug=true`; without it a bug shows where it was.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from trainer.config import interruption
from trainer.config.errors import SMALLER_STEP, MemoryPlanError, RunError
from trainer.config.interruption import Interrupted

STOPPED_BY_USER = interruption.STOPPED_BY_USER
BUG = 1


def when_ending(call: Callable[[int], None]) -> None:
    """Have `call` told the exit code before Python takes its leave."""
    interruption.before_leaving.append(call)


def end(call: Callable[[], int], *, debug: bool) -> NoReturn:
    """Leave the process with what `call` returns, or the code of what it raises."""
    interruption.begin()
    try:
        code = exit_code_of(call, debug=debug)
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(bool(ending.code))
    except Interrupted as told:  # while another end was told
        code = told.exit_code
    interruption.settle(code)
    for tell in interruption.before_leaving:
        tell(code)
    if interruption.was_told():  # Python would first wait for threads, as of a compiler
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def exit_code_of(call: Callable[[], int], *, debug: bool) -> int:
    """Return what `call` returns, or the code of what it raises, told on stderr.

    `SystemExit` passes through.
    """
    try:
        return call()
    except BrokenPipeError:  # whoever read our output has left, as in `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BUG
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        text, code = _told(error)
        print(text, file=sys.stderr)
        return code


def _told(error: BaseException) -> tuple[str, int]:
    """Return the text and the exit code of an error."""
    if isinstance(error, Interrupted):
        return error.message(), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        text = f"stopped (exit code {STOPPED_BY_USER}); the same command goes on"
        return text, STOPPED_BY_USER
    if isinstance(error, MemoryError):
        error = _out_of_memory(error)
    if isinstance(error, RunError):
        return error.message(), error.exit_code
    if (told := interruption.raised()) is not None:
        return told.message(), told.exit_code
    return _bug(error), BUG


def _out_of_memory(error: MemoryError) -> MemoryPlanError:
    return MemoryPlanError(
        key="trainer.microbatch_size",
        expected="a run that fits the memory of this machine",
        received=str(error) or "no memory left",
        fix=SMALLER_STEP,
    )


def _bug(error: BaseException) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"a bug of the trainer (exit code {BUG})\n"
        f"  {type(error).__name__}: {error}\n"
        f"  in {place.name}, line {place.lineno} of {place.filename}\n"
        "  debug=true shows the whole traceback"
    )
