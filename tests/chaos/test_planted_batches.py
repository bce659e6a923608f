"""A tenth of the batches that are not finite: the run is as if it never had them."""

import pytest

from tests.chaos.planted_nonfinite import PLANTED


@pytest.mark.timeout(600)
def test_batches_that_are_not_finite_leave_no_trace(tenth, faults):
    assert faults(tenth(PLANTED)) == {}
