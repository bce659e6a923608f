"""Trials are kept, a rerun does what is missing, and a table tells what came."""

import pytest

from tests.chaos.experiment import Experiment, make_trial
from tests.chaos.ledger import Ledger, count_of
from tests.chaos.report import report
from tests.chaos.workplace import Workplace

MACHINE = {
    **{"processor": "abacus", "cores": 2, "memory_gb": 4},
    **{"system": "Linux", "python": "3.11"},
}


def experiment(run):
    return Experiment(
        name="coins",
        test="toss",
        asked="heads",
        full=30,
        run=run,
        seconds="in the air",
        notes=lambda trials: f"{len(trials)} tossed",
    )


def toss(place, numbers):
    for number in numbers:
        if number == 3:
            raise KeyboardInterrupt
        faults = ["tails"] if number == 1 else []
        yield make_trial(number, faults, seconds=number / 2, metal="tin")


@pytest.fixture
def ledger(tmp_path):
    """Return a ledger of trials that were interrupted before number 3."""
    ledger = Ledger(tmp_path, experiment(toss))
    with pytest.raises(KeyboardInterrupt):
        list(ledger.carry_out(Workplace(tmp_path / "runs", seed=7), ledger.missing(5)))
    return ledger


def test_a_rerun_does_what_is_missing(ledger):
    assert [t["trial"] for t in ledger.trials()] == [0, 1, 2]
    assert ledger.missing(5) == [3, 4]
    assert ledger.missing(5, failed_too=True) == [1, 3, 4]
    assert {(t["seed"], t["metal"]) for t in ledger.trials()} == {(7, "tin")}


def test_a_trial_that_was_repeated_counts_once(ledger, tmp_path):
    list(ledger.carry_out(Workplace(tmp_path / "runs"), [2, 1]))
    assert [(t["trial"], t["seed"]) for t in ledger.trials()] == [
        (0, 7),
        (1, 0),
        (2, 0),
    ]


def test_a_tenth_has_a_tenth_of_the_trials_and_one_at_least():
    assert [count_of(experiment(toss), s) for s in (1, 0.1, 0.001)] == [30, 3, 1]


def test_the_table_says_what_was_reached_so_far_and_what_failed(ledger):
    page = report(
        {experiment(toss): ledger.trials()},
        counts={"coins": 30},
        facts=MACHINE,
        command="python -m tests.chaos",
    )
    row = "| toss | heads | 2 of 3 so far, of 30 to do; 3 tossed | 0.5 s in the air |"
    assert row in page
    assert "- coins, trial 1: tails\n" in page
    date = ledger.trials()[0]["time"][:10]
    assert f"{date}, abacus, 2 cores, 4 GB" in page and "Seeds 7; revisions" in page


def test_the_table_says_what_was_not_tried():
    page = report(
        {experiment(toss): []}, counts={"coins": 30}, facts=MACHINE, command=""
    )
    assert "| toss | heads | none yet, of 30 to do |  |" in page


def test_the_table_of_whole_figures_mentions_no_rest(ledger):
    trials = [t for t in ledger.trials() if t["passed"]]
    page = report(
        {experiment(toss): trials}, counts={"coins": 2}, facts=MACHINE, command=""
    )
    assert "| 2 of 2; 2 tossed |" in page and "failed" not in page
