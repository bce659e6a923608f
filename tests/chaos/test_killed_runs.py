"""A tenth of the kills: runs go on unaided and end as if nothing had happened."""

import pytest

from tests.chaos.sigkill import SIGKILL
from tests.chaos.sigkill_pair import SIGKILL_PAIR


@pytest.mark.timeout(600)
@pytest.mark.parametrize("experiment", [SIGKILL, SIGKILL_PAIR], ids=lambda e: e.name)
def test_killed_runs_end_bit_for_bit_as_unbroken_ones(tenth, faults, experiment):
    assert faults(tenth(experiment)) == {}
