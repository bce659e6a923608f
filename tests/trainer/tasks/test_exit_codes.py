"""The exit code of what ends a run, as its last event tells it."""

import signal

import jax
import pytest

from trainer.config.errors import StorageError
from trainer.config.interruption import Interrupted
from trainer.tasks.stopping import exit_code_of

FULL = StorageError(key="run.root", expected="room", received="none", fix="more")
LOST = jax.errors.JaxRuntimeError("UNKNOWN: Gloo AllReduce failed: closed by peer")


@pytest.mark.parametrize(
    ("error", "processes", "code"),
    [
        (FULL, 2, 7),
        (Interrupted(signal.SIGTERM), 1, 83),
        (Interrupted(signal.SIGINT), 1, 130),
        (MemoryError(), 1, 5),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 1 byte"), 2, 5),
        (LOST, 2, 6),
        (LOST, 1, 1),
        (TypeError("a bug"), 2, 1),
    ],
)
def test_an_end_is_told_with_the_code_that_the_process_has(
    monkeypatch, error, processes, code
):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    assert exit_code_of(error) == code
