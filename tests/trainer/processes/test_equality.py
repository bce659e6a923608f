"""Four processes of two devices train as one process does, on every mesh."""

import h5py
import numpy as np
import pytest

MESHES = ("1x8", "8x1", "2x4", "4x2")
LOSS_TOLERANCE = 1e-5  # relative: sums in float32 in another order
NORM_TOLERANCE = 1e-4  # of an adapter after AdamW, which divides by small moments
SGD_TOLERANCE = 1e-5  # elementwise, of the largest element
SGD = ("optimizer=sgd", "optimizer.learning_rate=0.05")
QUICKLY = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # to compile, that is


@pytest.fixture(scope="module")
def trained(starter):
    """Every run of this module: four processes, one of eight devices, one of one."""
    adam = [[f"mesh={mesh}", f"run.name=four-adamw-{mesh}"] for mesh in MESHES]
    sgd = [[f"mesh={mesh}", f"run.name=four-sgd-{mesh}", *SGD] for mesh in MESHES]
    groups = [
        starter.start([*adam, *sgd], processes=4, devices=2, **QUICKLY),
        starter.start(both("eight", "2x4"), processes=1, devices=8, **QUICKLY),
        starter.start(both("one", "1x1"), processes=1, **QUICKLY),
    ]
    for group in groups:
        assert set(group.wait(840)) == {0}, group.everything()
    return starter


def both(name, mesh):
    return [
        [f"mesh={mesh}", f"run.name={name}-adamw"],
        [f"mesh={mesh}", f"run.name={name}-sgd", *SGD],
    ]


def adapters(starter, name):
    found = {}
    with h5py.File(starter.root / name / "artifacts/lora/adapter.lora.h5") as file:
        file.visititems(
            lambda path, item: (
                found.update({path: item[()]})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("alone", ["eight", "one"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("mesh", MESHES)
def test_losses_are_those_of_one_process(trained, mesh, optimizer, alone):
    four = trained.losses(f"four-{optimizer}-{mesh}")
    one = trained.losses(f"{alone}-{optimizer}")
    assert len(four) == len(one) == 20
    assert list(four.values()) == pytest.approx(list(one.values()), rel=LOSS_TOLERANCE)


@pytest.mark.parametrize("alone", ["eight", "one"])
@pytest.mark.parametrize("mesh", MESHES)
def test_adapters_are_those_of_one_process_after_adamw(trained, mesh, alone):
    four, one = (adapters(trained, n) for n in (f"four-adamw-{mesh}", f"{alone}-adamw"))
    assert len(four) == len(one) > 0
    for path, expected in one.items():
        distance = np.linalg.norm(four[path] - expected)
        assert distance <= NORM_TOLERANCE * np.linalg.norm(expected), path


@pytest.mark.parametrize("alone", ["eight", "one"])
@pytest.mark.parametrize("mesh", MESHES)
def test_adapters_are_those_of_one_process_after_sgd(trained, mesh, alone):
    four, one = (adapters(trained, n) for n in (f"four-sgd-{mesh}", f"{alone}-sgd"))
    for path, expected in one.items():
        largest = np.abs(expected).max()
        np.testing.assert_allclose(four[path], expected, atol=SGD_TOLERANCE * largest)


def test_four_processes_leave_one_directory(trained):
    run = trained.root / "four-adamw-2x4"
    assert sorted(path.name for path in run.iterdir()) == [
        *("README.md", "artifacts", "checkpoints", "config.yaml", "done.json"),
        *("events.jsonl", "metrics.jsonl", "report.html"),
    ]
    said = [trained.groups[0].said(index) for index in range(4)]
    assert [text.count("step 20/20") for text in said] == [8, 0, 0, 0]
