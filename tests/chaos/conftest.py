"""A tenth of the figures, carried out beside other tests."""

import pytest

from tests.chaos.ledger import Ledger, count_of
from tests.chaos.workplace import Workplace

TENTH = 0.1
SLACK = 10.0  # other tests keep the same processors busy


@pytest.fixture
def tenth(tmp_path):
    """Return a function that carries out a tenth of an experiment."""

    def carry_out(experiment):
        """Return its trials, as many as there should be."""
        ledger, count = Ledger(tmp_path, experiment), count_of(experiment, TENTH)
        runs = tmp_path / "runs"
        with Workplace(runs, seed=0, scale=TENTH, slack=SLACK) as place:
            trials = list(ledger.carry_out(place, ledger.missing(count)))
        assert len(trials) == count
        return trials

    return carry_out


@pytest.fixture
def faults():
    """Return a function that returns the faults of all trials, by number."""
    return lambda trials: {t["trial"]: t["faults"] for t in trials if not t["passed"]}
