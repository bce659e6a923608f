import jax
import pytest

from trainer.config.errors import ConfigError
from trainer.config.topology import Topology, parse_topology
from trainer.distribution.host_memory import host_bytes
from trainer.tasks.planning.chips import target_of, undescribed

GIB = 2**30


def test_simulated_devices_share_the_memory_of_this_machine():
    target = target_of(parse_topology("cpu:4"))
    assert (target.platform, target.num_devices) == ("cpu", 4)
    assert target.bytes_per_device == host_bytes() // 4
    assert list(target.devices) == jax.devices()[:4]


def test_no_topology_means_the_devices_of_this_machine():
    target = target_of(None)
    assert target.num_devices == len(jax.devices())
    assert target.name == f"cpu:{target.num_devices}, here"
    assert target.reason == ""


def test_more_simulated_devices_than_jax_was_told_are_refused():
    with pytest.raises(ConfigError) as caught:
        target_of(parse_topology("cpu:64"))
    assert caught.value.key == "plan.topology"
    assert f"at most {len(jax.devices())} devices" in caught.value.expected
    assert caught.value.fix == "one command for each number of devices"


@pytest.mark.parametrize(
    ("text", "usable", "reason"),
    [
        ("v5e:2x4", round(15.75 * GIB), "no libtpu here"),
        ("v5p:2x2x1", round(95.74 * GIB), "no libtpu here"),
        ("h100:8", 81_559 * 2**20 * 3 // 4, "planned by estimate"),
    ],
)
def test_chips_that_nothing_compiles_for_are_known_by_their_memory(
    text, usable, reason
):
    target = undescribed(parse_topology(text))
    assert target.devices is None
    assert target.bytes_per_device == usable
    assert reason in target.reason
    assert target.topology == parse_topology(text)


@pytest.mark.tpu_aot
@pytest.mark.parametrize(
    ("topology", "devices"),
    [
        (Topology("v5e", (1, 1)), 1),
        (Topology("v4", (2, 2, 1)), 4),
        (Topology("v5p", (2, 2, 2)), 8),
        (Topology("v6e", (16, 16)), 256),
        (Topology("v5e", (4, 4), slices=2), 32),
    ],
)
def test_libtpu_describes_the_chips(topology, devices):
    target = target_of(topology)
    assert len(target.devices) == target.num_devices == devices
    slices = {getattr(d, "slice_index", None) for d in target.devices}
    assert len(slices) == topology.slices


@pytest.mark.tpu_aot
def test_a_slice_that_libtpu_does_not_know_is_refused():
    with pytest.raises(ConfigError, match="a topology that libtpu knows"):
        target_of(Topology("v5e", (3, 3)))
