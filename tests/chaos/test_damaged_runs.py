"""A tenth of the damages to checkpoints: they are found, and named."""

import pytest

from tests.chaos.damage import DAMAGE


@pytest.mark.timeout(600)
def test_damage_is_found_before_the_first_step_and_named(tenth, faults):
    assert faults(tenth(DAMAGE)) == {}
