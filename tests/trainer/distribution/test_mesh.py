"""Choosing a mesh: what the user typed, or the first that fits."""

import jax
import pytest

from trainer.config.errors import ConfigError, MemoryPlanError
from trainer.distribution.mesh import batch_sharding, build_mesh, choose_mesh


def choose(wanted, *, devices=8, microbatch=8, limit=None, planned=lambda shape: 0):
    return choose_mesh(
        wanted,
        num_devices=devices,
        microbatch_size=microbatch,
        planned_bytes=planned,
        bytes_per_device=limit,
    )


def test_a_typed_mesh_is_taken():
    assert choose("2x4").shape == (2, 4)


def test_auto_puts_all_devices_on_batch():
    assert choose("auto").shape == (8, 1)


def test_auto_moves_factors_of_two_to_model_until_it_fits():
    choice = choose("auto", limit=300, planned=lambda shape: 1000 // shape[1])
    assert choice.shape == (2, 4)
    assert "auto, planned" in choice.reason


def test_auto_skips_batches_that_do_not_divide():
    assert choose("auto", microbatch=2).shape == (2, 4)


def test_auto_takes_any_number_of_devices():
    assert choose("auto", devices=7, microbatch=16).shape == (1, 7)


def test_nothing_that_fits_says_how_much_is_missing():
    with pytest.raises(MemoryPlanError, match="at least 1.00 GiB a device of 1 MiB"):
        choose("auto", limit=1 << 20, planned=lambda shape: 1 << 30)


def test_a_mesh_of_other_devices_names_those_that_fit():
    with pytest.raises(ConfigError, match="mesh=8x1 or mesh=4x2 or mesh=2x4") as error:
        choose("2x2")
    assert "device.simulated=4" in error.value.fix
    assert "which needs 4" in error.value.received


def test_a_batch_that_the_mesh_cannot_share_names_the_next():
    with pytest.raises(ConfigError, match="global_batch_size=8"):
        choose("8x1", microbatch=6)


def test_neighbours_share_the_model_axis():
    mesh = build_mesh((2, 4), jax.devices())
    assert mesh.axis_names == ("batch", "model")
    assert [d.id for d in mesh.devices[0]] == [0, 1, 2, 3]


def test_a_batch_is_split_over_its_axis_alone():
    mesh = build_mesh((2, 4), jax.devices())
    sharding = batch_sharding(mesh, dims=3, batch_dim=1)
    assert tuple(sharding.spec) == (None, "batch", None)
