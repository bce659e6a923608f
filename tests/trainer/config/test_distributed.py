"""What the keys of several processes mean for the mesh, before JAX is imported."""

import pytest

from trainer.__main__ import compose
from trainer.config.errors import ConfigError
from trainer.config.identity import run_name

FOUR = (
    "distributed.coordinator=localhost:8476",
    "distributed.num_processes=4",
    "distributed.process_index=1",
)


def test_simulated_devices_of_all_processes_make_the_mesh():
    assert compose([*FOUR, "device.simulated=2", "mesh=2x4"]).mesh.shape == "2x4"


def test_a_mesh_that_does_not_fit_the_processes_says_what_would():
    with pytest.raises(ConfigError) as caught:
        compose([*FOUR, "device.simulated=3", "mesh=1x8"])
    assert caught.value.expected.endswith("the number of devices, 12")
    assert "device.simulated=2 makes 2 in each of 4" in caught.value.fix


def test_a_mesh_that_processes_cannot_share_offers_no_simulation():
    with pytest.raises(ConfigError) as caught:
        compose([*FOUR, "device.simulated=3", "mesh=1x6"])
    assert "device.simulated" not in caught.value.fix


def test_model_across_slices_is_refused():
    with pytest.raises(ConfigError, match="4 slices share evenly") as caught:
        compose(["mesh=2x8", "mesh.slices=4"])
    assert caught.value.fix == "mesh=4x4"


def test_processes_do_not_decide_the_name_of_a_run():
    assert run_name(compose([])) == run_name(compose(FOUR))
