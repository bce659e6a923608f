"""`touch SAVE` in a run's directory saves now, and the run goes on."""

import signal
import time

from trainer import storage
from trainer.tracking import read_events

MANY_STEPS = (
    *("trainer.num_train_steps=20000", "trainer.eval_every_steps=0"),
    *("checkpoint.every_steps=20000", "run.name=asked"),
)


def test_touch_save_saves_the_next_step_and_takes_the_file_away(runs):
    process, file = runs.start(*MANY_STEPS), runs.root / "asked" / "SAVE"
    while process.poll() is None and len(runs.losses("asked")) < 3:
        time.sleep(0.02)
    file.touch()
    while process.poll() is None and file.exists():
        time.sleep(0.02)
    saved = storage.list_names(file.parent / "checkpoints")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 83, output
    assert len(saved) == 1
    steps = [event["step"] for event in read_events(file.parent, "checkpoint")]
    assert steps[0] == int(saved[0]) >= 3
    assert len(steps) == 2  # the request's and the signal's
