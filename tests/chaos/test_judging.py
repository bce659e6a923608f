"""What trials find wrong with a directory: other numbers, rubbish, a lost commit."""

import pytest

from tests.chaos.directories import differing_numbers, leftovers, numbers
from tests.chaos.killing import Watch, lost_since, what_was_killed
from trainer.tracking import MetricsLog


def test_numbers_are_compared_bit_for_bit_and_times_are_not(tmp_path):
    line = '{"step": 1, "train/loss": %s, "train/step_seconds": %s}\n'
    for name, loss, seconds in (("a", "0.1", "1.0"), ("b", "0.1", "2.0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(line % (loss, seconds))
    first, second = numbers(tmp_path / "a"), numbers(tmp_path / "b")
    assert differing_numbers(first, second) == []
    other = {1: {**first[1], "train/loss": 0.1 + 2**-56}, 2: {}}
    assert differing_numbers(first, other) == ["other numbers at 2 steps: 1, 2"]


def test_what_a_save_left_behind_is_seen(tmp_path):
    (tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp").mkdir(parents=True)
    (tmp_path / "checkpoints" / "6").mkdir()
    assert leftovers(tmp_path) == ["left: checkpoints/7.orbax-checkpoint-tmp"]


@pytest.fixture
def killed(tmp_path):
    """Return a run's directory, and what a kill inside its third save left."""
    for name in ("3", "6"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    watch = Watch(tmp_path)
    (tmp_path / "checkpoints" / "9.orbax-checkpoint-tmp").mkdir()
    return tmp_path, what_was_killed("save", watch)


def go_on_from(run, step):
    """Return a watch that saw a start which read the checkpoint of a step."""
    watch = Watch(run)
    with MetricsLog(run) as log:
        log.event("restored", {"step": step})
    return watch


def test_a_kill_inside_a_save_is_told_from_one_outside(killed):
    run, kill = killed
    assert kill == {"aim": "save", "inside_save": True, "committed": 6}
    stale = what_was_killed("start", Watch(run))
    assert stale == {"aim": "start", "inside_save": False, "committed": 6}


def test_going_on_from_the_last_commit_loses_nothing(killed):
    run, kill = killed
    assert lost_since(kill, go_on_from(run, 6)) == []


def test_going_on_from_an_older_commit_is_a_loss(killed):
    run, kill = killed
    expected = "went on from step 3, and step 6 was committed"
    assert lost_since(kill, go_on_from(run, 3)) == [expected]


def test_a_commit_that_is_gone_is_a_loss(killed):
    run, kill = killed
    (run / "checkpoints/6").rmdir()
    expected = "step 3 is the newest, and step 6 was committed"
    assert lost_since(kill, Watch(run)) == [expected]
