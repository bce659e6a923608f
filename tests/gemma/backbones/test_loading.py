"""What is loaded is every variable once, with no second copy and on the mesh."""

import contextlib
import json

import jax
import keras
import numpy as np
import pytest

from gemma import Backbone, Gemma3Backbone, GemmaBackbone
from gemma.backbones.loading import build_empty, load_variables
from gemma.presets import PresetFileError, check_each_once, open_preset

HF = "tests/golden/hf/gemma3"


class Recorded:
    """A source of weights that remembers into which memory it was read."""

    def __init__(self, source):
        self.source, self.memory = source, {}

    def paths(self):
        return self.source.paths()

    def read_into(self, out, path, index=None):
        self.memory[path] = out.ctypes.data
        self.source.read_into(out, path, index)


def test_a_loaded_value_is_the_memory_that_was_read(repository):
    preset = open_preset(str(repository / HF))
    arguments = preset.config.to_mapping()
    backbone = build_empty(lambda: Gemma3Backbone(**arguments, dtype="float32"))
    with preset.weights() as weights:
        recorded = Recorded(weights)
        load_variables(backbone.weights, recorded)
        for variable in backbone.weights:
            expected = weights.read(variable.path)
            np.testing.assert_array_equal(np.asarray(variable.value), expected)
            address = variable.value.unsafe_buffer_pointer()
            assert address == recorded.memory[variable.path]


def test_a_model_for_loading_has_random_states_and_no_weights(arguments):
    backbone = build_empty(lambda: GemmaBackbone(**arguments(), dropout=0.1))
    weights = {variable.path for variable in backbone.weights}
    assert all(variable._value is None for variable in backbone.weights)
    states = [v for v in backbone.variables if v.path not in weights]
    assert states
    assert all(variable._value is not None for variable in states)


@contextlib.contextmanager
def model_parallel(cls):
    mesh = keras.distribution.DeviceMesh((1, 1), ("batch", "model"), jax.devices()[:1])
    layout = cls.get_layout_map(mesh)
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
    )
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def test_under_a_mesh_every_variable_has_the_layout_of_the_map(repository):
    with model_parallel(GemmaBackbone):
        loaded = Backbone.from_preset(str(repository / "tests/golden/hf/gemma2"))
    for variable in loaded.weights:
        assert variable.value.sharding == variable._layout.backend_layout
    query = loaded.get_layer("decoder_block_1").attention.query_dense.kernel
    spec = query.value.sharding.spec
    assert spec == jax.sharding.PartitionSpec("model", "batch", None)


def test_a_variable_without_an_array_is_refused(repository):
    preset = open_preset(str(repository / HF))
    backbone = Backbone.from_preset(str(repository / HF))
    with preset.weights() as weights:
        with pytest.raises(PresetFileError, match="expected to be read once, received"):
            load_variables(backbone.weights[1:], weights)
        with pytest.raises(PresetFileError, match="received 2 arrays for it"):
            load_variables([*backbone.weights, backbone.weights[3]], weights)


def test_an_array_without_a_variable_is_refused():
    with pytest.raises(PresetFileError, match="b: expected no such variable, received"):
        check_each_once(["a", "b"], {"a"})
    check_each_once(["b", "a"], {"a", "b"})


def test_shards_of_the_chosen_size_are_saved_in_both_forms(build, tmp_path, batch):
    backbone = build("gemma2", 1)
    small = 20_000 / 1024**3
    backbone.save_to_preset(str(tmp_path / "keras"), max_shard_size=small)
    backbone.save_to_hf(str(tmp_path / "hf"), max_shard_size=small)
    weight_map = json.loads((tmp_path / "keras/model.weights.json").read_text())
    assert len(set(weight_map["weight_map"].values())) > 1
    index = json.loads((tmp_path / "hf/model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    expected = np.asarray(backbone(batch))
    for form in ("keras", "hf"):
        again = Backbone.from_preset(str(tmp_path / form))
        np.testing.assert_array_equal(np.asarray(again(batch)), expected)


def test_what_is_saved_for_transformers_has_the_adapters_merged(
    build, randomise, tmp_path, batch
):
    backbone = build("gemma2", 1, fresh=True)
    backbone.enable_lora(2, ["*"], alpha=3.0)
    randomise(backbone, seed=1)
    backbone.save_to_hf(str(tmp_path))
    again = GemmaBackbone.from_preset(str(tmp_path))
    np.testing.assert_allclose(
        np.asarray(again(batch)), np.asarray(backbone(batch)), atol=1e-5, rtol=1e-5
    )


def test_a_scale_that_keras_hub_cannot_name_is_moved_into_the_weights(
    repository, tmp_path, batch
):
    # transformers' golden Gemma 3 divides queries by the root of 24, heads have 16
    backbone = Backbone.from_preset(str(repository / HF))
    backbone.save_to_preset(str(tmp_path))
    again = Backbone.from_preset(str(tmp_path))
    assert again.gemma_config.query_pre_attn_scalar is None
    np.testing.assert_allclose(
        np.asarray(again(batch)), np.asarray(backbone(batch)), atol=1e-5, rtol=1e-5
    )
