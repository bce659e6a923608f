"""Whole runs on a base of 4 bits: they learn, are evaluated and leave files behind."""

import numpy as np
import pytest

from gemma import Backbone
from gemma.presets import open_preset
from trainer.__main__ import compose
from trainer.config.errors import ConfigError
from trainer.run import run

SETTINGS = (
    "mesh=2x4",
    "trainer.global_batch_size=8",
    "trainer.num_train_steps=12",
    "trainer.eval_every_steps=12",
    "trainer.sample_prompts=0",
    "checkpoint.every_steps=6",
    "data.sequence_length=64",
    "data.eval_rows=40",
    "preset.dtype=float32",
)


@pytest.fixture(scope="module")
def finished(runs_below, tmp_path_factory):
    """A run on floats and one on 4 bits, otherwise alike."""
    made = runs_below(tmp_path_factory.mktemp("quantized"))
    for name in ("none", "int4"):
        words = [*SETTINGS, f"preset.quantize={name}", f"run.name={name}"]
        assert run(compose([*words, f"run.root={made.root}"])) == 0
    return made


def test_a_run_on_4_bits_learns_as_one_on_floats(finished):
    floats, quantized = (finished.evaluations(name) for name in ("none", "int4"))
    learned = floats[0] - floats[12]
    assert learned > 0.2  # nats a token
    assert quantized[0] - quantized[12] > 0.8 * learned
    assert quantized[12] < floats[12] + 0.25 * learned


def test_its_checkpoints_hold_no_base(finished):
    sizes = [
        sum(f.stat().st_size for f in (finished.root / name).rglob("checkpoints/**/*"))
        for name in ("none", "int4")
    ]
    # Orbax's own files vary by a tenth; a base of 4 bits would add 2.1 MB a checkpoint
    assert abs(sizes[1] - sizes[0]) < 500_000


def test_its_adapter_was_made_on_4_bits_and_stands_on_the_floats_too(finished):
    adapter = str(finished.root / "int4/artifacts/lora/adapter.lora.h5")
    floats = Backbone.from_preset("gemma2_tiny_en", dtype="float32")
    floats.load_lora_weights(adapter)  # refuses another base
    with open_preset(str(finished.root / "int4/artifacts/preset")).weights() as written:
        for path in floats.gemma_config.parameter_shapes():
            want = floats.merged_array(path)
            np.testing.assert_allclose(written.read(path), want, rtol=1e-6, atol=1e-7)


def test_it_is_evaluated_as_it_was_trained(finished, capfd):
    words = [*SETTINGS, "run.name=int4", f"run.root={finished.root}", "task=evaluate"]
    assert run(compose(words)) == 0
    loss = finished.evaluations("int4")[12]
    assert f"{loss:.4f}"[:5] in capfd.readouterr().out.replace(",", "")


def test_the_report_says_what_was_not_measured(finished):
    text = (finished.root / "int4/report.html").read_text()
    assert "not measured: it is float, and the run held no float model" in text


def test_another_grid_is_another_run(finished):

    words = [*SETTINGS, "preset.quantize=int8", "run.name=int4"]
    with pytest.raises(ConfigError, match="preset.quantize"):
        run(compose([*words, f"run.root={finished.root}"]))
