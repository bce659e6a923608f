"""A tenth of the signals: SIGTERM in any phase saves, and the run goes on."""

import pytest

from tests.chaos.sigterm_phases import SIGTERM_PHASES


@pytest.mark.timeout(600)
def test_a_run_stopped_in_any_phase_saves_and_goes_on(tenth, faults):
    assert faults(tenth(SIGTERM_PHASES)) == {}
