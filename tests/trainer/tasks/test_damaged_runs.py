"""A run whose newest checkpoint was damaged stops, or goes on from the one before."""

import shutil

import pytest

from trainer import storage
from trainer.config.errors import DamagedError
from trainer.tracking import read_events

ONE_MORE = ("run.name=whole", "trainer.num_train_steps=7")


@pytest.fixture
def damaged(finished, runs):
    shutil.copytree(finished.root / "whole", runs.root / "whole")
    files = (runs.root / "whole/checkpoints/6/arrays").rglob("*")
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    return runs, largest


def test_a_damaged_checkpoint_stops_whoever_needs_it(damaged):
    runs, file = damaged
    for task in ("train", "evaluate"):
        with pytest.raises(DamagedError) as caught:
            runs.here(*ONE_MORE, f"task={task}")
        assert caught.value.exit_code == 7
        assert caught.value.key == str(runs.root / "whole/checkpoints/6")
        assert file.name in caught.value.received
        assert "checkpoint.on_corrupt=previous takes step 4 instead" in caught.value.fix
    assert storage.list_names(runs.root / "whole/checkpoints") == ["2", "4", "6"]


def test_previous_goes_on_from_step_4_and_says_so(damaged, finished, capsys):
    runs, file = damaged
    assert runs.here(*ONE_MORE, "task=evaluate", "checkpoint.on_corrupt=previous") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "step 4; step 6 is damaged and left out" in output
    assert runs.here(*ONE_MORE, "checkpoint.on_corrupt=previous") == 0
    place = str(runs.root / "whole/checkpoints-damaged/6")
    assert f"step 6 is damaged and left out, in {place}" in capsys.readouterr().out
    (event,) = read_events(runs.root / "whole", "damaged")
    assert (event["step"], event["place"]) == (6, place)
    assert file.name in event["damage"]
    assert read_events(runs.root / "whole", "restored")[-1]["step"] == 4
    lines = [m for m in runs.metrics("whole") if m.get("step") in (5, 6)]
    again = [m["train/loss"] for m in lines if "train/loss" in m]
    assert again[:2] == again[2:]  # the same steps, bit for bit
    assert storage.list_names(runs.root / "whole/checkpoints") == ["4", "6", "7"]
