"""A run of several processes that is killed, stopped and moved, and ends as planned."""

import signal

import pytest

from trainer.checkpoint import Store
from trainer.tracking import read_events, read_metrics

STEPS = 40
WORDS = (
    f"trainer.num_train_steps={STEPS}",
    "checkpoint.every_steps=3",
    "data.shuffle=true",
    "distributed.heartbeat_seconds=10",
)
ANOTHER_MESH = 1e-5  # relative: sums in float32 in another order


@pytest.mark.timeout(300)
def test_killed_on_four_stopped_on_two_a_run_ends_on_one_as_if_unbroken(starter):
    unbroken = starter.start(["run.name=unbroken", "mesh=1x1", *WORDS], processes=1)
    moved = ["run.name=moved", *WORDS]
    four = starter.start([*moved, "mesh=2x2"], processes=4)
    starter.signal_at(four, "moved", step=7, index=2, number=signal.SIGKILL)
    codes = four.wait(60)
    assert codes == [6, 6, -signal.SIGKILL, 6], four.everything()
    assert "process 2 on" in four.said(0)

    two = starter.start([*moved, "mesh=1x2"], processes=2)
    starter.signal_at(two, "moved", step=17, index=1, number=signal.SIGTERM)
    assert two.wait(60) == [83, 83], two.everything()
    assert "saved at step" in two.said(0)

    one = starter.start([*moved, "mesh=1x1"], processes=1)
    assert one.wait(90) == [0], one.everything()
    assert unbroken.wait(60) == [0], unbroken.everything()
    expected = starter.losses("unbroken")
    assert list(expected) == list(range(1, STEPS + 1))
    assert starter.losses("moved") == pytest.approx(expected, rel=ANOTHER_MESH)
    assert rows(starter, "moved") == rows(starter, "unbroken")
    restored = [e["step"] for e in read_events(starter.root / "moved", "restored")]
    # step 6 may still be under way at the kill; when it began, step 3 was committed
    assert len(restored) == 2 and restored[0] % 3 == 0, restored
    assert 3 <= restored[0] < restored[1] < STEPS


def rows(starter, name):
    """Return how many rows had been seen after each step, and where the data stood."""
    seen = {
        m["step"]: m["train/rows_seen"]
        for m in read_metrics(starter.root / name)
        if "train/rows_seen" in m
    }
    with Store(starter.root / name / "checkpoints", 1, read_only=True) as store:
        return seen, store.metadata()["progress"]["position"]
