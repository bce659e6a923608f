"""A tenth of the rest: contests for a directory, long runs, and what a save costs."""

import pytest

from tests.chaos.long_run import LONG_RUN
from tests.chaos.save_cost import SAVE_COST
from tests.chaos.two_in_one_directory import TWO_IN_ONE

pytestmark = pytest.mark.timeout(600)


def test_of_two_runs_in_a_directory_one_leaves_and_names_the_other(tenth, faults):
    assert faults(tenth(TWO_IN_ONE)) == {}


def test_memory_and_open_files_stay_over_hundreds_of_steps(tenth, faults):
    assert faults(tenth(LONG_RUN)) == {}


def test_the_loop_goes_on_before_a_save_is_committed(tenth, faults):
    assert faults(tenth(SAVE_COST)) == {}
