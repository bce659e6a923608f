"""What ends a run by an exception, in the words of the configuration.

Turns what JAX, Python, storage and a preset's files raise into errors with a key and an
exit code, where it is raised: whoever records the end and whoever leaves with it tell
the same. It refuses to know what was being done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

from gemma.presets import PresetFileError
from trainer.config.errors import PeerLostError, StorageError
from trainer.config.interruption import Interrupted
from trainer.config.schema import RunConfig
from trainer.distribution.joining import concluding, silent_peers, told_to_end
from trainer.distribution.processes import may_be_of_peers
from trainer.tasks.out_of_memory import is_out_of_memory, out_of_memory
from trainer.tasks.session import preset_error


@contextlib.contextmanager
def explained(config: RunConfig) -> Iterator[None]:
    """Say errors that know no keys in the words of the configuration.

    Args:
        config: What was to be done.

    Raises:
        RunError: For memory that ran out, a preset or a place that cannot be read, and
            a process that is lost.
        Interrupted: Another process was told to end, and this one followed.
    """
    try:
        yield
    except PresetFileError as error:
        raise preset_error(error) from error
    except (jax.errors.JaxRuntimeError, ValueError, MemoryError) as error:
        if is_out_of_memory(error):
            raise out_of_memory(error, config) from error
        if may_be_of_peers(error):
            raise _peer_lost(error) from error
        raise
    except OSError as error:
        raise StorageError(
            key=str(error.filename or "run.root"),
            expected="a place that can be read and written",
            received=f"{type(error).__name__}: {error.strerror or error}",
            fix="check free space and rights, or choose another run.root",
        ) from error


def _peer_lost(error: Exception) -> PeerLostError | Interrupted:
    """Return what a computation of all processes says when one of them is gone."""
    with concluding():  # while it listens, it still has what a run leaves to close
        silent = ", ".join(silent_peers()) or "not known which; the others' logs say"
    if told := told_to_end():
        return told
    return PeerLostError(
        key="a computation of all processes",
        expected="all of them at work",
        received=f"{str(error).splitlines()[0][:200]}; silent: {silent}",
        fix="the same command goes on from the last checkpoint",
    )
