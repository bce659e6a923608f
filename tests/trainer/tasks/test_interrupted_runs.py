"""Killed and stopped runs in processes of their own: they go on bit for bit."""

import random
import signal

import pytest

from trainer.tracking import read_metrics


@pytest.fixture(scope="module")
def unbroken(runs_below, tmp_path_factory):
    made = runs_below(tmp_path_factory.mktemp("unbroken"))
    assert made.finish("run.name=whole")[0] == 0
    return made.losses("whole"), made.evaluations("whole")


def test_a_killed_run_ends_bit_for_bit_as_one_left_alone(runs, unbroken):
    step = random.SystemRandom().randint(1, 5)
    code, _ = runs.interrupt("run.name=killed", step=step)
    assert code == -signal.SIGKILL
    code, output = runs.finish("run.name=killed")
    assert code == 0, output
    metrics = read_metrics(runs.root / "killed")
    losses = {m["step"]: m["train/loss"] for m in metrics if "train/loss" in m}
    assert losses == unbroken[0], f"killed at step {step}"
    assert runs.evaluations("killed") == unbroken[1]


def test_ctrl_c_saves_and_says_how_to_go_on(runs, unbroken):
    code, output = runs.interrupt("run.name=stopped", step=1, with_signal=signal.SIGINT)
    assert code == 130, output
    assert "the same command goes on" in output
    assert "Traceback" not in output
    code, output = runs.finish("run.name=stopped")
    assert code == 0, output
    assert runs.losses("stopped") == unbroken[0]


def test_sigterm_saves_and_exits_83(runs):
    code, output = runs.interrupt("run.name=taken", step=1, with_signal=signal.SIGTERM)
    assert code == 83, output
    assert "which is saved" in output
    assert "goes on from there" in output
