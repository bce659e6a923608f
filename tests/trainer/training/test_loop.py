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

    def __init__(self, *, stop_at=None, bad=(), minimised=None):
        self.logged, self.evaluated, self.saved = {}, [], []
        self.skipped, self.tried = [], 0
        self.older = []
        self.events = []
        self.seconds_off = 0.0
        self._minimised = minimised
        self.stop, self._stop_at, self._bad = StopRequest(), stop_at, bad

    def step(self, state, frozen, batch):
        if state + 1 == self._stop_at:
            self.stop.signal = 2
        self.events.append(f"step {state + 1}")
        self.tried += 1
        is_good = self.tried not in self._bad
        loss = 6.0 if is_good else np.nan
        sums = StepSums(loss, self._minimised or loss, 3.0, 0.5, 0.1, is_good)
        return state + is_good, sums

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

    def rewind(self, state, progress):
        assert state == progress.step
        return self.older.pop() if self.older else None

    def note(self, what):
        self.seconds_off += 1000.0
        self.events.append(what)

    def run(
        self, *, steps=5, start=0, evaluate=2, save=2, log=1, recorded=None, most=3
    ):
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
                max_skipped_steps=most,
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
                skipped=self.skipped.append,
                rewind=self.rewind,
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


@pytest.mark.parametrize("bad", [(1,), (3,), (4, 5), (2, 4, 6), (8, 9)])
def test_a_skipped_step_is_tried_again_with_the_next_batch(bad):
    """Whether it is read late, or at once because something was due."""
    recorder = Recorder(bad=bad)
    outcome = recorder.run(steps=7)
    good = [n for n in range(1, 11) if n not in bad][:7]
    assert outcome.state == outcome.progress.step == 7
    assert outcome.progress.position == good[-1]
    assert outcome.progress.rows_seen == 14
    skipped = [n for n in bad if n < good[-1]]
    assert [s.batch.position for s in recorder.skipped] == skipped
    assert [s.step for s in recorder.skipped] == [
        1 + sum(n < place for n in good) for place in skipped
    ]
    assert outcome.progress.skipped_steps == len(skipped)
    assert recorder.evaluated == [0, 2, 4, 6, 7]
    places = [(step, good[step - 1]) for step in (2, 4, 6, 7)]
    assert [(step, place) for step, _, place, _ in recorder.saved] == places
    assert recorder.logged[7]["train/skipped_steps"] == len(skipped)


def test_what_is_saved_of_a_step_does_not_know_what_was_skipped_after_it():
    recorder = Recorder(bad=(3, 4), stop_at=3)
    outcome = recorder.run(evaluate=0, save=0)
    assert outcome.was_stopped
    assert recorder.saved == [(2, 2, 2, None)]
    assert outcome.progress == Progress(step=2, position=2, rows_seen=4, tokens_seen=10)


@pytest.mark.parametrize("start", [3, 4, 5])
def test_too_many_skipped_in_a_row_end_the_run_with_the_last_update_saved(start):
    recorder = Recorder(bad=range(start, 20))
    with pytest.raises(NumericsError, match=f"nan and 0.5 at step {start}, 3 in a row"):
        recorder.run(steps=9)
    assert recorder.saved[-1][:3] == (start - 1,) * 3
    assert [s.in_a_row for s in recorder.skipped] == [1, 2, 3]
    assert recorder.tried == start + 2


def test_the_first_skipped_step_may_be_too_many():
    """The step under way is finished: it is an update, and is saved as such."""
    recorder = Recorder(bad=(3,))
    with pytest.raises(NumericsError, match="at step 3, 1 in a row"):
        recorder.run(steps=9, most=1)
    assert recorder.saved[-1][:3] == (3, 3, 4)


def test_a_run_that_never_updates_has_nothing_to_save():
    recorder = Recorder(bad=range(9))
    with pytest.raises(NumericsError, match="none is kept yet"):
        recorder.run()
    assert recorder.saved == []


def test_a_run_that_goes_back_goes_on_with_the_rows_after_those_that_were_skipped():
    recorder = Recorder(bad=(6, 7, 8))
    recorder.older = [(2, Progress(step=2, position=2, rows_seen=4, rewound_to=2))]
    outcome = recorder.run(steps=6)
    assert outcome.state == outcome.progress.step == 6
    assert outcome.progress.position == 12
    assert outcome.progress.skipped_steps == 3
    assert outcome.progress.rewound_to == 2
    assert [(step, place) for step, _, place, _ in recorder.saved] == [
        *((2, 2), (4, 4)),
        *((4, 10), (6, 12)),
    ]
    assert recorder.evaluated == [0, 2, 4, 4, 6]


def test_a_profile_of_a_skipped_step_begins_and_ends_once():
    recorder = Recorder(bad=(2, 3, 4))
    recorder.run(steps=4, evaluate=0, save=0, recorded=(2, 3), most=9)
    events = [event for event in recorder.events if "st" in event[:2]]
    assert events == [
        *("step 1", "start at 1", "step 2", "step 2", "step 2", "step 2"),
        *("step 3", "stop", "step 4"),
    ]
