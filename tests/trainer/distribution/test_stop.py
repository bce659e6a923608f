"""One number that all devices agree on, and a stop that asks for it once a step."""

import signal

import jax
import pytest

from trainer.config.interruption import Interrupted
from trainer.distribution.mesh import build_mesh
from trainer.distribution.stop import SharedStop
from trainer.training.stop import StopRequest


def test_a_process_alone_stops_for_its_own_signal():
    stop = SharedStop(build_mesh((4, 2), jax.devices()))
    assert [stop(0), stop(15)] == [0, 15]


def test_without_others_a_signal_is_asked_at_once():
    with StopRequest() as stop:
        stop.keep()
        assert not stop.is_asked()
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_asked()
        assert stop.signal == signal.SIGTERM


def test_another_process_signal_becomes_the_own_one():
    told = []
    answers = iter([0, signal.SIGTERM])

    def agree(number):
        told.append(number)
        return next(answers)

    with StopRequest() as stop:
        stop.share(agree)
        assert [stop.is_asked(), stop.is_asked()] == [False, True]
        assert stop.signal == signal.SIGTERM
    assert told == [0, 0]


@pytest.mark.parametrize("keeps", [False, True])
def test_a_signal_ends_what_has_nothing_to_save(keeps):
    with StopRequest() as stop, pytest.raises(Interrupted, match="SIGTERM") as raised:
        if keeps:
            stop.keep()
            signal.raise_signal(signal.SIGTERM)
            stop.let_go()
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.exit_code == 83


def test_another_process_signal_ends_what_has_nothing_to_save_any_more():
    with StopRequest() as stop:
        stop.share(lambda number: signal.SIGINT)
        stop.keep()
        assert stop.is_asked()
        with pytest.raises(Interrupted, match="SIGINT") as raised:
            stop.let_go()
    assert raised.value.exit_code == 130
