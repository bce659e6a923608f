"""A tenth of the kills: runs go on unaided and end as if nothing had happened."""

import pytest

from tests.chaos.sigkill import SIGKILL


@pytest.mark.timeout(600)
def test_killed_runs_end_bit_for_bit_as_unbroken_ones(tenth, faults):
    assert faults(tenth(SIGKILL)) == {}
