"""A request to save reaches the loop in all processes, and stops nobody."""

import signal

from trainer.training.stop import SAVE, StopRequest


def test_a_request_is_told_once_and_kept_until_it_is_saved():
    told, asked = [], iter([True, False, False])
    stop = StopRequest()
    stop.save_with(lambda: next(asked))
    stop.share(lambda number: told.append(number) or number)
    assert [stop.is_asked(), stop.is_asked()] == [False, False]
    assert stop.wants_save
    stop.saved()
    assert not stop.is_asked()
    assert not stop.wants_save
    assert told == [SAVE, 0, 0]


def test_another_process_asks_for_this_one_too():
    stop = StopRequest()
    stop.share(lambda number: SAVE)
    assert not stop.is_asked()
    assert stop.wants_save


def test_a_signal_counts_more_than_a_request():
    stop = StopRequest()
    stop.save_with(lambda: True)
    stop.share(lambda number: max(number, signal.SIGTERM))
    assert stop.is_asked()
    assert stop.signal is signal.SIGTERM
    assert not stop.wants_save
