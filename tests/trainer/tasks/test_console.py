"""What a terminal shows of a run, drawn by the real library at several widths."""

import io

import pytest
from rich.console import Console

from trainer.tasks.console import Bar, Screen

NUMBERS = {"train/loss": 3.5, "train/tokens_per_second": 125_792.0}


def shown(width, *, first_step=0, steps=(), is_terminal=True, more=()):
    screen = Screen()
    screen.console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=is_terminal,
        legacy_windows=False,
        color_system=None,
        highlight=False,
    )
    with Bar(screen, first_step=first_step, num_train_steps=250) as bar:
        for step in steps:
            bar.show(step, NUMBERS | dict(more))
    return screen.console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_bar_keeps_its_numbers_whole_in_one_line(width):
    last = shown(width, steps=[1, 137]).replace("\r", "\n").splitlines()
    bars = [line for line in last if "137/250" in line]
    assert bars
    assert all("loss 3.500  125,792 tokens/s" in line for line in bars)
    assert all("…" not in line for line in bars)


def test_the_share_of_the_peak_is_shown_where_it_is_known():
    last = shown(80, steps=[137], more={"train/mfu": 0.517}).replace("\r", "\n")
    assert "loss 3.500  125,792 tokens/s  MFU 52%" in last


def test_the_bar_begins_where_a_run_goes_on():
    assert "100/250 starting" in shown(80, first_step=100)


def test_without_a_terminal_there_is_a_line_for_every_tenth():
    lines = shown(160, steps=range(1, 251), is_terminal=False).splitlines()
    steps = [int(line.split()[1].split("/")[0]) for line in lines if "step" in line]
    assert steps == [1, *range(25, 251, 25)]
