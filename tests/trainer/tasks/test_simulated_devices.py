"""The two commands of the README on simulated devices, as processes of their own."""

import re
import subprocess
import sys

import pytest

from gemma.adapters import read_lora
from gemma.presets import open_preset


@pytest.mark.parametrize(
    "words", [["mesh=2x4"], ["+preset=gemma2_tiny_en", "mesh=1x8"]]
)
def test_eight_simulated_devices_end_with_artifacts_that_load(
    repository, tmp_path, words
):
    few = ["trainer.num_train_steps=2", "data.eval_rows=16", "trainer.sample_prompts=1"]
    where = [f"run.root={tmp_path}", "run.name=x", "generate.max_new_tokens=4"]
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *words, "device.simulated=8", *few, *where],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"mesh +(2x4|1x8) \(batch x model\) on 8", done.stdout)
    artifacts = tmp_path / "x" / "artifacts"
    preset = open_preset(str(artifacts / "preset"))
    with preset.weights() as weights:
        assert len(weights.paths()) == 2 + 4 * 11
    adapter = read_lora(artifacts / "lora/adapter.lora.h5", preset.config)
    assert len(adapter.arrays) == 4 * 2 * 2
