"""Devices of several hosts and slices: `model` stays inside, `batch` runs across."""

import dataclasses
import random

import numpy as np
import pytest

from trainer.config.errors import ConfigError
from trainer.config.mesh_shape import check_slices
from trainer.distribution.mesh import build_mesh, choose_mesh, count_slices


@dataclasses.dataclass(frozen=True)
class Device:
    id: int
    process_index: int
    slice_index: int | None = None
    platform: str = "tpu"


def pod(*, slices, hosts, chips):
    """Return the devices of a pod, in an order that says nothing."""
    devices = [
        Device(
            id=(s * hosts + h) * chips + c,
            process_index=s * hosts + h,
            slice_index=s if slices > 1 else None,
        )
        for s in range(slices)
        for h in range(hosts)
        for c in range(chips)
    ]
    random.Random(0).shuffle(devices)
    return devices


def hosts_of(mesh):
    return np.vectorize(lambda device: device.process_index)(mesh.devices)


def test_model_stays_inside_a_host_where_it_fits():
    mesh = build_mesh((4, 4), pod(slices=1, hosts=4, chips=4))
    assert hosts_of(mesh).tolist() == [[h] * 4 for h in range(4)]


def test_model_beyond_a_host_takes_whole_hosts():
    mesh = build_mesh((2, 8), pod(slices=1, hosts=4, chips=4))
    assert hosts_of(mesh).tolist() == [[0] * 4 + [1] * 4, [2] * 4 + [3] * 4]


def test_batch_runs_across_slices():
    mesh = build_mesh((4, 8), pod(slices=4, hosts=2, chips=4))
    slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    assert slices.tolist() == [[s] * 8 for s in range(4)]


@pytest.mark.parametrize(("wanted", "found"), [(None, 2), (2, 2)])
def test_slices_are_those_of_the_devices(wanted, found):
    assert count_slices(wanted, pod(slices=2, hosts=1, chips=4)) == found


def test_processes_are_taken_as_slices_where_devices_name_none():
    assert count_slices(4, pod(slices=1, hosts=4, chips=2)) == 4
    assert count_slices(2, pod(slices=1, hosts=1, chips=8)) == 2


@pytest.mark.parametrize(
    ("wanted", "slices", "hosts", "received"),
    [
        (3, 2, 2, "3, and 16 devices in 2 slices"),
        (3, 1, 4, "3, and 16 devices in 4 process(es)"),
    ],
)
def test_other_slices_than_there_are_are_refused(wanted, slices, hosts, received):
    with pytest.raises(ConfigError) as caught:
        count_slices(
            wanted, pod(slices=slices, hosts=hosts, chips=16 // slices // hosts)
        )
    assert caught.value.received == received
    assert caught.value.fix.startswith("mesh.slices=null")


def test_a_model_axis_across_slices_is_refused_with_a_shape_that_fits():
    with pytest.raises(ConfigError) as caught:
        check_slices((1, 16), 4)
    assert caught.value.received == "1x16"
    assert caught.value.fix == "mesh=4x4"


def test_auto_keeps_model_inside_a_slice():
    choice = choose_mesh(
        "auto",
        num_devices=16,
        microbatch_size=16,
        planned_bytes=lambda shape: 100 // shape[1],
        bytes_per_device=30,
        slices=4,
    )
    assert choice.shape == (4, 4)
