"""What ends a run is said with the exit code that the process has."""

import signal

import jax
import pytest

from trainer.__main__ import compose
from trainer.config.errors import StorageError
from trainer.config.interruption import Interrupted
from trainer.tasks.explaining import explained

FULL = StorageError(key="run.root", expected="room", received="none", fix="more")
LOST = jax.errors.JaxRuntimeError("UNKNOWN: Gloo AllReduce failed: closed by peer")


def end_by(error):
    """Return the error that one becomes."""
    with pytest.raises(BaseException) as caught, explained(compose([])):  # noqa: PT011
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "processes", "code"),
    [
        (FULL, 2, 7),
        (PermissionError(13, "no rights", "outputs"), 1, 7),
        (Interrupted(signal.SIGTERM), 1, 83),
        (Interrupted(signal.SIGINT), 1, 130),
        (MemoryError(), 1, 5),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 1 byte"), 2, 5),
        (LOST, 2, 6),
    ],
)
def test_an_end_has_the_code_of_its_cause(monkeypatch, error, processes, code):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    assert end_by(error).exit_code == code


@pytest.mark.parametrize(("error", "processes"), [(LOST, 1), (TypeError("a bug"), 2)])
def test_a_bug_stays_what_it_is(monkeypatch, error, processes):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    assert end_by(error) is error


def test_a_lost_process_is_told_in_the_library_s_words_with_what_to_do(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    lost = end_by(LOST)
    assert lost.received.startswith(f"{LOST}; silent:")
    assert lost.fix == "the same command goes on from the last checkpoint"
