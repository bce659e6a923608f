"""Keras models of published size, built without arrays under a distribution's scope.

Other processes build them, since a mesh of 16x16 needs 256 simulated devices.
"""

import json
import os
import subprocess
import sys

import pytest

from gemma.presets import BUILT_IN

BUILD = """
import json, math, pathlib, sys
import keras
from gemma.abstract import build_abstract
from gemma.backbones.families import backbone_class
from gemma.layout import table
from gemma.lora import lora_settings
from gemma.presets import BUILT_IN

MESHES = [(1, 1), (1, 2), (1, 4), (1, 8), (2, 4), (4, 2), (8, 1), (2, 8), (4, 8),
          (16, 16)]
AXES = ("batch", "model")
lora = lora_settings(16, targets=["*"])
checked = 0

def build(cls, config):
    backbone = cls(**config.to_mapping(), dtype="bfloat16")
    backbone.enable_lora(lora.rank, lora.targets)
    return backbone

for name in sys.argv[1:]:
    config = BUILT_IN[name].config
    cls = backbone_class(config)
    for mesh in MESHES:
        devices = keras.distribution.list_devices()[: mesh[0] * mesh[1]]
        layout_map = cls.get_layout_map(
            keras.distribution.DeviceMesh(mesh, AXES, devices)
        )
        distribution = keras.distribution.ModelParallel(
            layout_map=layout_map, batch_dim_name="batch"
        )
        with distribution.scope():
            backbone = build_abstract(lambda: build(cls, config))
        listed = table(config, mesh, dtype="bfloat16", lora=lora)
        rows = {row.path: row for row in listed.rows}
        assert rows.keys() == {v.path for v in backbone.weights}
        for variable in backbone.weights:
            layout = distribution.get_variable_layout(variable).backend_layout
            part = layout.shard_shape(tuple(variable.shape))  # raises if indivisible
            size = math.prod(part) * {"bfloat16": 2, "float32": 4}[variable.dtype]
            assert size == rows[variable.path].bytes_per_device, variable.path
        checked += 1
status = pathlib.Path("/proc/self/status").read_text()
peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps({"checked": checked, "bytes": peak}))
"""

FEW = ("gemma_2b_en", "gemma2_2b_en", "gemma3_270m")
DISTINCT = {facts.config: name for name, facts in BUILT_IN.items()}.values()


def build_on_ten_meshes(names, repository):
    """Compare the parts of every variable with the table; return what was built."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, *names],
        cwd=repository,
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=256"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_models_of_few_heads_build_on_ten_meshes_as_the_table_says(repository):
    built = build_on_ten_meshes(FEW, repository)
    assert built["checked"] == 30
    assert built["bytes"] < 1.5e9


@pytest.mark.slow
def test_every_preset_builds_on_ten_meshes_as_the_table_says(repository):
    """Presets of the same dimensions share one model."""
    built = build_on_ten_meshes(DISTINCT, repository)
    assert built["checked"] == 110
    assert built["bytes"] < 1.5e9
