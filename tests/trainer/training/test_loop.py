"""The loop's order of events, with real functions of small numbers."""

import itertools
import time

import numpy as np
import pytest

from trainer.config.errors import NumericsError
from trainer.training.loop import Hooks, PlacedBatch, Progress, Rhythm, train
from trainer.training.step import StepSums
from trainer.training.stop import StopRequest

IDS = np.zeros((1, 1, 8), "int32")


class Recorder:
    """Writes down what the loop asks for; the state is the number of steps."""

    def __init__(self, *, stop_at=None, bad_at=None, minimised=None):
        self.logged, self.evaluated, self.saved = {}, [], []
        self.events = []
        self.seconds_off = 0.0
        self._minimised = minimised
        self.stop, self._stop_at, self._bad_at = StopRequest(), stop_at, bad_at

    def step(self, state, frozen, batch):
        if state + 1 == self._stop_at:
            self.stop.signal = 2
        self.events.append(f"step {state + 1}")
        loss = np.nan if state + 1 == self._bad_at else 6.0
        return state + 1, StepSums(loss, self._minimised or loss, 3.0, 0.5, 0.1)

    def batches(self, start=0):
        place = start
        while True:
            place += 1
            self.events.append(f"batch {place}")
            yield PlacedBatch({"token_ids": IDS}, place, rows=2, lengths=(2, 3))

    def log(self, step, values):
        self.events.append(f"log {step}")
        self.logged.setdefault(step, {}).update(values)

    def evaluate(self, state):
        self.evaluated.append(state)
        return {"eval/loss": 10.0 - state}

    def note(self, what):
        self.seconds_off += 1000.0
        self.events.append(what)

    def run(self, *, steps=5, start=0, evaluate=2, save=2, log=1, recorded=None):
        return train(
            start,
            {},
            self.step,
            self.batches(start),
            progress=Progress(step=start, position=start, rows_seen=2 * start),
            rhythm=Rhythm(
                num_train_steps=steps,
                eval_every_steps=evaluate,
                log_every_steps=log,
                checkpoint_every_steps=save,
                recorded=recorded,
            ),
            hooks=Hooks(
                gauge=lambda step: {"train/longest": max(step.lengths)},
                log=self.log,
                evaluate=self.evaluate,
                save=lambda state, progress, loss: self.saved.append(
                    (state, progress.step, progress.position, loss)
                ),
                start_recording=lambda state: self.note(f"start at {state}"),
                stop_recording=lambda: self.note("stop"),
            ),
            stop=self.stop,
        )


def test_evaluates_before_between_and_after():
    recorder = Recorder()
    recorder.run()
    assert recorder.evaluated == [0, 2, 4, 5]


def test_tells_what_follows_from_a_step_and_its_time():
    recorder = Recorder()
    recorder.run()
    for values in (recorder.logged[step] for step in (1, 5)):
        seconds = values["train/step_seconds"]
        assert values["train/tokens_per_second"] * seconds == pytest.approx(5)
        assert values["train/loss_tokens_per_second"] * seconds == pytest.approx(3)
        assert 0.0 <= values["train/data_wait_share"] <= 1.0
        assert values["train/longest"] == 3


def test_saves_the_state_with_its_position_and_loss():
    recorder = Recorder()
    recorder.run()
    assert recorder.saved == [(2, 2, 2, 8.0), (4, 4, 4, 6.0), (5, 5, 5, 5.0)]


def test_the_next_batch_is_there_before_a_step_is_waited_for():
    recorder = Recorder()
    recorder.run(steps=3, evaluate=0, save=0)
    assert recorder.events == [
        *("batch 1", "step 1", "batch 2"),
        *("step 2", "batch 3", "log 1"),
        *("step 3", "log 2", "log 3"),
    ]


def test_recording_waits_for_the_steps_and_is_the_time_of_none(monkeypatch):
    recorder, ticks = Recorder(), itertools.count()
    now = lambda: next(ticks) + recorder.seconds_off  # noqa: E731
    monkeypatch.setattr(time, "perf_counter", now)
    recorder.run(steps=5, evaluate=0, save=0, recorded=(3, 4))
    events = [event for event in recorder.events if "batch" not in event]
    assert events == [
        *("step 1", "step 2", "log 1", "log 2", "start at 2"),
        *("step 3", "step 4", "log 3", "log 4", "stop", "step 5", "log 5"),
    ]
    seconds = [values["train/step_seconds"] for values in recorder.logged.values()]
    assert len(seconds) == 5
    assert 0.0 < min(seconds) <= max(seconds) < 1000.0


@pytest.mark.parametrize(
    ("start", "notes"), [(2, ["start at 2", "stop"]), (3, ["start at 3", "stop"])]
)
def test_a_resumed_run_records_what_is_left_of_the_steps(start, notes):
    recorder = Recorder()
    recorder.run(start=start, recorded=(2, 4))
    assert [e for e in recorder.events if "st" in e and "step" not in e] == notes


def test_a_resumed_run_beyond_the_steps_records_nothing():
    recorder = Recorder()
    recorder.run(start=4, recorded=(2, 4))
    assert not {"start at 4", "stop"} & set(recorder.events)


def test_a_batch_that_was_not_used_is_the_next_of_a_resumed_run():
    recorder = Recorder(stop_at=3)
    outcome = recorder.run(evaluate=0)
    assert "batch 4" in recorder.events
    assert outcome.progress.position == 3


def test_a_step_that_was_not_measured_has_no_loss():
    recorder = Recorder()
    recorder.run(evaluate=5, save=2)
    assert [loss for *_, loss in recorder.saved] == [None, None, 5.0]


def test_every_step_is_logged_once_with_its_own_numbers():
    recorder = Recorder()
    recorder.run(evaluate=0)
    assert list(recorder.logged) == [1, 2, 3, 4, 5]
    assert recorder.logged[3]["train/loss"] == 2.0
    assert recorder.logged[3]["train/rows_seen"] == 6


def test_what_is_minimised_is_told_where_it_is_not_the_loss():
    plain, smoothed = Recorder(), Recorder(minimised=9.0)
    plain.run(evaluate=0)
    smoothed.run(evaluate=0)
    assert "train/minimised_loss" not in plain.logged[2]
    assert smoothed.logged[2]["train/loss"] == 2.0
    assert smoothed.logged[2]["train/minimised_loss"] == 3.0


def test_sparse_logging_keeps_the_first_and_the_last_step():
    recorder = Recorder()
    recorder.run(evaluate=0, log=3)
    assert list(recorder.logged) == [1, 3, 5]


def test_a_restored_run_neither_evaluates_first_nor_repeats():
    recorder = Recorder()
    outcome = recorder.run(start=3)
    assert recorder.evaluated == [4, 5]
    assert outcome.progress == Progress(
        step=5, position=5, rows_seen=10, tokens_seen=10
    )


def test_a_request_to_stop_saves_the_last_step():
    recorder = Recorder(stop_at=3)
    outcome = recorder.run()
    assert outcome.was_stopped
    assert recorder.saved[-1][:3] == (3, 3, 3)


def test_a_finished_run_trains_nothing():
    recorder = Recorder()
    outcome = recorder.run(start=5)
    assert not outcome.was_stopped
    assert recorder.saved == []
    assert recorder.evaluated == []


def test_a_loss_that_is_not_finite_ends_the_run_unsaved():
    recorder = Recorder(bad_at=2)
    with pytest.raises(NumericsError, match="nan and 0.5 at step 2"):
        recorder.run(save=2)
    assert recorder.saved == []
