import os
import subprocess
import sys

import pytest

from trainer.__main__ import compose
from trainer.config.errors import ConfigError
from trainer.config.topology import (
    TPU_SHAPES,
    Topology,
    larger_topologies,
    parse_topology,
    planned_topology,
)


@pytest.mark.parametrize(
    ("text", "chip", "shape", "devices", "platform"),
    [
        ("v5e:2x4", "v5e", (2, 4), 8, "tpu"),
        ("V6E:16x16", "v6e", (16, 16), 256, "tpu"),
        ("v5p:2x2x2", "v5p", (2, 2, 2), 8, "tpu"),
        ("v4:4x8x8", "v4", (4, 8, 8), 256, "tpu"),
        ("v5e:8", "v5e", (2, 4), 8, "tpu"),
        ("v5e", "v5e", (1, 1), 1, "tpu"),
        ("cpu:8", "cpu", (8,), 8, "cpu"),
        ("cpu", "cpu", (1,), 1, "cpu"),
        ("h100:8", "h100", (8,), 8, "gpu"),
        ("a100-80gb:16", "a100-80gb", (16,), 16, "gpu"),
    ],
)
def test_a_topology_is_a_chip_and_a_count(text, chip, shape, devices, platform):
    topology = parse_topology(text)
    assert topology == Topology(chip, shape)
    assert (topology.devices, topology.platform) == (devices, platform)


def test_slices_multiply_a_topology():
    topology = parse_topology("v5e:4x4", slices=4)
    assert topology.devices == 64
    assert str(topology) == "4 x v5e:4x4"


def test_slices_are_told_once_each():
    for shapes in TPU_SHAPES.values():
        assert len(set(shapes)) == len(shapes)


WRONG = [
    ("v5e:2x5", "1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16", "v5e:2x4"),
    ("v5e:300", "a slice of v5e", "v5e:16x16"),
    ("v5p:3x3x3", "2x2x1, 2x2x2", "v5p:2x4x4"),
    ("v4:2x2", "a slice of v4", "v4:2x2x1"),
    ("h10:8", "h100, h200", "h100:8"),
    ("zzz", "v5e, v6e", "v5e:8"),
    ("h100:2x4", "h100:N, N from 1 to 4096", "h100:8"),
    ("cpu:0", "cpu:N", "cpu:1"),
    ("v5e:2x", "v5e", "v5e:8"),
]


@pytest.mark.parametrize(("text", "expected", "fix"), WRONG)
def test_a_topology_that_does_not_exist_is_refused_with_the_nearest(
    text, expected, fix
):
    with pytest.raises(ConfigError) as caught:
        compose(["task=plan", f"plan.topology={text}"])
    assert caught.value.key == "plan.topology"
    assert expected in caught.value.expected
    assert caught.value.received == text
    assert caught.value.fix == f"plan.topology={fix}"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", [fix for _, _, fix in WRONG])
def test_what_is_suggested_exists(text):
    parse_topology(text)


@pytest.mark.parametrize(
    ("mesh", "topology", "fix"),
    [
        ("4x8", "v5e:2x4", "plan.topology=v5e:4x8, or mesh=8x1 or mesh=4x2 or mesh="),
        ("1x12", "v6e:2x4", "mesh=8x1 or mesh=4x2 or mesh=2x4 or mesh=1x8"),
        ("1x12", "h100:8", "plan.topology=h100:12, or mesh=8x1"),
    ],
)
def test_a_mesh_of_other_devices_is_refused_with_both_ways_out(mesh, topology, fix):
    with pytest.raises(ConfigError) as caught:
        compose(["task=plan", f"mesh={mesh}", f"plan.topology={topology}"])
    assert caught.value.key == "plan.topology"
    assert f"as many devices as mesh={mesh} has" in caught.value.expected
    assert caught.value.fix.startswith(fix)


def test_a_task_that_does_not_plan_never_looks_at_the_topology():
    assert compose(["plan.topology=v9:1"]).plan.topology == "v9:1"


@pytest.mark.parametrize(
    ("words", "topology"),
    [
        ([], None),
        (["device.simulated=4"], Topology("cpu", (4,))),
        (["plan.topology=cpu", "device.simulated=4"], Topology("cpu", (4,))),
        (["plan.topology=cpu:2", "device.simulated=4"], Topology("cpu", (2,))),
        (["plan.topology=v5e:2x2"], Topology("v5e", (2, 2))),
    ],
)
def test_a_plan_is_for_what_is_named_or_for_what_is_simulated(words, topology):
    assert planned_topology(compose(["task=plan", *words])) == topology


def test_a_topology_is_printed_as_it_is_typed():
    for text in ("v5e:2x4", "v5p:2x2x1", "cpu:8", "h100:8"):
        assert str(parse_topology(text)) == text


@pytest.mark.parametrize(
    ("words", "platforms", "flag"),
    [
        (["task=plan", "plan.topology=cpu:4"], "cpu", "device_count=4"),
        (["task=plan", "plan.topology=v5e:2x4"], "cpu", None),
        (["task=plan", "plan.topology=h100:8"], "cpu", None),
        (["task=plan"], None, None),
        (["task=train", "plan.topology=cpu:4"], None, None),
    ],
)
def test_jax_is_told_the_devices_before_it_is_imported(words, platforms, flag):
    code = (
        "import sys; from trainer.__main__ import compose;"
        "from trainer.config.simulated import prepare_devices;"
        "prepare_devices(compose(sys.argv[1:])); import os;"
        "print(os.environ.get('JAX_PLATFORMS'), os.environ.get('XLA_FLAGS'))"
    )
    unset = ("JAX_PLATFORMS", "XLA_FLAGS")
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env={k: v for k, v in os.environ.items() if k not in unset},
        capture_output=True,
        text=True,
        check=True,
    )
    found_platforms, found_flags = done.stdout.split()
    assert found_platforms == str(platforms)
    assert found_flags.endswith(str(flag))


@pytest.mark.parametrize(
    ("text", "larger"),
    [
        ("v5e:4x8", ["v5e:8x8", "v5e:8x16", "v5e:16x16"]),
        ("v5p:4x4x4", ["v5p:4x4x8", "v5p:4x4x12", "v5p:4x4x16", "v5p:4x8x8"]),
        ("h100:64", ["h100:128", "h100:256"]),
        ("v6e:16x16", []),
    ],
)
def test_larger_topologies_have_more_of_the_same_chips(text, larger):
    assert [str(t) for t in larger_topologies(parse_topology(text))] == larger


def test_several_slices_are_left_as_they_are():
    assert larger_topologies(parse_topology("v5e:2x4", slices=2)) == []
