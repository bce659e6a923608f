"""A tenth of the resumed runs: at any step, on any mesh, by any number of processes."""

import pytest

from tests.chaos.mesh_pairs import MESH_PAIRS
from tests.chaos.process_counts import PROCESS_COUNTS
from tests.chaos.resume_everywhere import RESUME

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize(
    "experiment", [RESUME, MESH_PAIRS, PROCESS_COUNTS], ids=lambda e: e.name
)
def test_a_resumed_run_goes_on_as_if_unbroken(tenth, faults, experiment):
    assert faults(tenth(experiment)) == {}
