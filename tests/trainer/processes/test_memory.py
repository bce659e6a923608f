"""Each of four processes holds its quarter of the weights, and reads no more."""

import dataclasses
import json

import numpy as np
import pytest

from gemma.abstract import build_abstract
from gemma.backbones.families import backbone_class
from gemma.presets import open_preset, write_preset

MIB = 1 << 20
WORDS = ("trainer.num_train_steps=1", "trainer.global_batch_size=4")


@pytest.fixture(scope="module")
def large(repository, tmp_path_factory):
    """Return a preset of 400 MB in float32, and its bytes."""
    small = open_preset(str(repository / "tests/golden/keras_hub/gemma"))
    config = dataclasses.replace(
        small.config, num_layers=8, hidden_dim=1024, intermediate_dim=8192
    )
    backbone = build_abstract(
        lambda: backbone_class(config)(**config.to_mapping(), dtype="float32")
    )
    shapes = {v.path: tuple(v.shape) for v in backbone.variables}
    draw = np.random.default_rng(0).standard_normal
    place = tmp_path_factory.mktemp("large")
    write_preset(
        place,
        config=config,
        dtype="float32",
        arrays=lambda path: 0.02 * draw(shapes[path], dtype=np.float32),
        vocabulary=small.vocabulary(),
    )
    return place, config.parameter_count * 4


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mesh", ["1x4", "4x1"])
def test_a_process_holds_its_quarter_of_the_weights(starter, large, mesh):
    preset, size = large
    small = peaks(starter, [f"run.name=small-{mesh}", f"mesh={mesh}", *WORDS])
    words = [f"run.name=large-{mesh}", f"mesh={mesh}", f"preset.name={preset}", *WORDS]
    added = [peak - min(small) for peak in peaks(starter, words)]
    print(json.dumps({"weights": size // MIB, "added": [a // MIB for a in added]}))
    # a quarter, the largest stacked slice once more, and the activations of a step
    assert max(added) < 0.6 * size


def peaks(starter, words):
    """Return the peak memory of each process, what it mapped from files included."""
    group = starter.start([words], processes=4)
    assert group.wait(140) == [0] * 4, group.everything()
    lines = [group.said(index).splitlines() for index in group.indices]
    found = [next(line for line in said if line.startswith("VmHWM")) for said in lines]
    return [int(line.split()[1]) * 1024 for line in found]
