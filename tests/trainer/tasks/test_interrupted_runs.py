"""Killed and stopped runs in processes of their own: they go on bit for bit."""

import random
import re
import signal

import pytest

from trainer.tracking import read_events, read_metrics

THIRTY_STEPS = (
    "trainer.num_train_steps=30",
    "trainer.eval_every_steps=12",
    "checkpoint.every_steps=7",
)
# far more than happen while a signal is on its way
MANY_STEPS = ("trainer.num_train_steps=2000", "trainer.eval_every_steps=0")


@pytest.mark.parametrize(
    "form",
    [
        pytest.param((), id="adapters"),
        pytest.param(("lora=none",), id="all weights"),
        pytest.param(("trainer.microbatch_size=2",), id="eight microbatches a step"),
    ],
)
def test_a_killed_run_ends_bit_for_bit_as_one_left_alone(runs, form):
    words = (*THIRTY_STEPS, *form)
    assert runs.finish("run.name=unbroken", *words)[0] == 0
    step = random.SystemRandom().randint(1, 20)
    code, _ = runs.interrupt("run.name=killed", *words, step=step)
    assert code == -signal.SIGKILL
    code, output = runs.finish("run.name=killed", *words)
    assert code == 0, output
    assert read_losses(runs, "killed") == read_losses(runs, "unbroken"), step
    assert runs.evaluations("killed") == runs.evaluations("unbroken")


def read_losses(runs, name):
    metrics = read_metrics(runs.root / name)
    return {m["step"]: m["train/loss"] for m in metrics if "train/loss" in m}


def test_ctrl_c_saves_and_says_how_to_go_on(runs):
    code, output = runs.interrupt(
        "run.name=stopped", *MANY_STEPS, step=2, with_signal=signal.SIGINT
    )
    assert code == 130, output
    assert "the same command goes on" in output
    assert "Traceback" not in output
    saved = int(re.search(r"saved at step (\d+)", output)[1])
    assert (runs.root / f"stopped/checkpoints/{saved}").exists()


def test_sigterm_saves_and_exits_83(runs):
    code, output = runs.interrupt(
        "run.name=taken", *MANY_STEPS, step=2, with_signal=signal.SIGTERM
    )
    assert code == 83, output
    assert "saved at step" in output
    assert read_events(runs.root / "taken", "end")[-1]["exit_code"] == 83
    code, output = runs.finish("run.name=taken", "trainer.num_train_steps=1")
    assert code == 0, output
