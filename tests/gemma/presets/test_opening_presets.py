"""Golden directories come back whole: facts, shapes, values, slices."""

import json
import pathlib
import shutil

import h5py
import ml_dtypes
import numpy as np
import pytest
from etils import epath
from safetensors import safe_open

from gemma.config import GemmaConfig
from gemma.presets import PresetFileError, open_preset, write_hf, write_preset
from gemma.presets.hf_weights import hf_name
from gemma.presets.keras_layout import adapter_indices

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
DIRECTORIES = [
    "keras_hub/gemma",
    "keras_hub/gemma2",
    "keras_hub/gemma3",
    "hf/gemma",
    "hf/gemma2",
    "hf/gemma3",
]


@pytest.mark.parametrize("name", DIRECTORIES)
def test_every_variable_has_the_shape_of_the_config(name):
    preset = open_preset(str(GOLDEN / name))
    with preset.weights() as weights:
        expected = preset.config.parameter_shapes()
        assert weights.paths() == expected.keys()
        for path, shape in expected.items():
            values = weights.read(path)
            assert values.shape == weights.shape(path) == shape
            assert values.dtype == weights.dtype(path) == np.float32
            assert np.isfinite(values).all()


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_slice_equals_the_part_of_the_whole(name):
    preset = open_preset(str(GOLDEN / name))
    with preset.weights() as weights:
        for path in weights.paths():
            shape = weights.shape(path)
            index = tuple(slice(dim // 2, dim) for dim in shape)
            part = weights.read(path, index)
            np.testing.assert_array_equal(part, weights.read(path)[index])
            first = weights.read(path, (slice(0, 1),))
            assert first.shape == (1, *shape[1:])
            assert weights.read(path, (slice(2, 2),)).shape == (0, *shape[1:])


def test_keras_hub_directory_states_its_facts():
    preset = open_preset(str(GOLDEN / "keras_hub/gemma2"))
    assert (preset.form, preset.dtype, preset.architecture) == (
        "keras",
        "float32",
        "gemma",
    )
    assert preset.sequence_length == 24
    assert preset.config == GemmaConfig(
        vocabulary_size=2048,
        num_layers=3,
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=48,
        intermediate_dim=192,
        head_dim=16,
        use_post_ffw_norm=True,
        use_post_attention_norm=True,
        attention_logit_soft_cap=5.0,
        final_logit_soft_cap=8.0,
        use_sliding_window_attention=True,
        sliding_window_size=6,
    )
    metadata = json.loads((GOLDEN / "keras_hub/gemma2/metadata.json").read_text())
    assert preset.config.parameter_count == metadata["parameter_count"]


def test_hugging_face_directory_states_its_facts():
    preset = open_preset(str(GOLDEN / "hf/gemma2"))
    assert (preset.form, preset.dtype) == ("hf", "float32")
    assert preset.config.intermediate_dim == 256
    assert preset.config.sliding_window_size == 8
    assert preset.config.attention_logit_soft_cap == 50.0
    assert preset.config.query_head_dim_normalize
    assert open_preset(str(GOLDEN / "hf/gemma")).config.use_post_ffw_norm is False


def test_vocabulary_is_that_of_the_directory():
    preset = open_preset(str(GOLDEN / "keras_hub/gemma"))
    expected = (GOLDEN / "keras_hub/gemma/assets/tokenizer/vocabulary.spm").read_bytes()
    assert preset.vocabulary() == expected
    assert open_preset(str(GOLDEN / "hf/gemma")).vocabulary() is None


def test_query_kernel_is_the_transpose_of_each_heads_rows():
    preset = open_preset(str(GOLDEN / "hf/gemma2"))
    path = "decoder_block_2/attention/query/kernel"
    with safe_open(GOLDEN / "hf/gemma2/model.safetensors", framework="np") as file:
        rows = file.get_tensor("model.layers.2.self_attn.q_proj.weight")
        out = file.get_tensor("model.layers.2.self_attn.o_proj.weight")
    with preset.weights() as weights:
        query = weights.read(path)
        output = weights.read("decoder_block_2/attention/attention_output/kernel")
    x = np.random.default_rng(0).normal(size=64).astype(np.float32)
    by_head = np.einsum("d,ndh->nh", x, query)
    np.testing.assert_allclose(by_head.reshape(-1), rows @ x, rtol=1e-5, atol=1e-6)
    y = by_head.reshape(-1)
    np.testing.assert_allclose(
        np.einsum("nh,nhd->d", by_head, output), out @ y, rtol=1e-4, atol=1e-6
    )


def test_gemma_1_calls_the_norm_before_the_feed_forward_by_another_name():
    first = open_preset(str(GOLDEN / "hf/gemma")).config
    second = open_preset(str(GOLDEN / "hf/gemma2")).config
    path = "decoder_block_1/pre_ffw_norm/scale"
    assert hf_name(path, first) == "layers.1.post_attention_layernorm.weight"
    assert hf_name(path, second) == "layers.1.pre_feedforward_layernorm.weight"


def test_adapter_numbers_are_those_that_keras_hub_counts():
    first = adapter_indices(open_preset(str(GOLDEN / "keras_hub/gemma")).config)
    second = adapter_indices(open_preset(str(GOLDEN / "keras_hub/gemma2")).config)
    third = adapter_indices(open_preset(str(GOLDEN / "keras_hub/gemma3")).config)
    for layer in range(3):
        block = f"decoder_block_{layer}/attention"
        assert first[f"{block}/value"] == 8 + 11 * layer
        assert first[f"{block}/query"] == 10 + 11 * layer
        assert second[f"{block}/value"] == 9 + 13 * layer
        assert second[f"{block}/query"] == 11 + 13 * layer
        assert third[f"{block}/value"] == 11 + 15 * layer
        assert third[f"{block}/query"] == 13 + 15 * layer


def test_tiny_preset_brings_its_vocabulary():
    assert len(open_preset("gemma2_tiny_en").vocabulary()) > 10_000


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(PresetFileError, match="'gemma2_9b'.*try gemma2_9b_en"):
        open_preset("gemma2_9b")
    with pytest.raises(PresetFileError, match="names are gemma_2b_en, "):
        open_preset("/nowhere/zzzz")


def test_a_directory_without_config_says_what_it_lacks(tmp_path):
    with pytest.raises(PresetFileError, match="config.json: expected a file of JSON"):
        open_preset(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PresetFileError, match="class_name .KerasHub. or model_type"):
        open_preset(str(tmp_path))


def test_errors_keep_their_parts():
    with pytest.raises(PresetFileError) as caught:
        open_preset(str(epath.Path("/nowhere/gemma2_2b_en")))
    assert caught.value.subject == "preset"
    assert caught.value.received == "'/nowhere/gemma2_2b_en'"
    assert str(caught.value).startswith("preset: expected a built-in name, ")


def rewritten(tmp_path, change):
    """Copy a golden preset and store one of its datasets in another way."""
    target = tmp_path / "preset"
    shutil.copytree(GOLDEN / "keras_hub/gemma2", target)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    with h5py.File(target / "model.weights.h5", "a") as file:
        name = "layers/gemma_decoder_block/attention/query_dense/vars/0"
        values = file[name][()]
        del file[name]
        change(file, name, values)
    return open_preset(str(target))


def compressed(file, name, values):
    file.create_dataset(name, data=values, chunks=(1, 16, 16), compression="gzip")


def big_endian(file, name, values):
    file.create_dataset(name, data=values.astype(">f4"))


@pytest.mark.parametrize("change", [compressed, big_endian])
def test_numbers_that_are_stored_otherwise_are_the_same(tmp_path, change):
    path = "decoder_block_0/attention/query/kernel"
    with open_preset(str(GOLDEN / "keras_hub/gemma2")).weights() as weights:
        expected = weights.read(path)
    with rewritten(tmp_path, change).weights() as weights:
        assert weights.dtype(path) == np.float32
        np.testing.assert_array_equal(weights.read(path), expected)
        part = (slice(1, 3), slice(5, 40))
        np.testing.assert_array_equal(weights.read(path, part), expected[part])
        out = np.zeros((2, 35, 16), ml_dtypes.bfloat16)
        weights.read_into(out, path, part)
        np.testing.assert_array_equal(out, expected[part].astype(out.dtype))


def test_a_large_array_is_copied_by_several_threads(tmp_path):
    config = GemmaConfig(
        vocabulary_size=8000,
        num_layers=1,
        num_query_heads=1,
        num_key_value_heads=1,
        hidden_dim=300,
        intermediate_dim=9000,
        head_dim=8,
    )
    rng = np.random.default_rng(0)
    arrays = {
        path: rng.normal(size=shape).astype("float32")
        for path, shape in config.parameter_shapes().items()
    }
    for write in (write_preset, write_hf):
        write(
            tmp_path,
            config=config,
            dtype="float32",
            arrays=arrays.get,
            vocabulary=None,
        )
        with open_preset(str(tmp_path)).weights() as weights:
            for path, values in arrays.items():
                np.testing.assert_array_equal(weights.read(path), values)
                part = tuple(slice(0, dim - 1) for dim in values.shape)
                np.testing.assert_array_equal(weights.read(path, part), values[part])


def test_files_of_keras_2_and_keras_nlp_are_read(tmp_path):
    def rename(file, name, values):
        file[name] = values
        file.move("layers", "_layer_checkpoint_dependencies")

    path = "decoder_block_2/ffw_linear/kernel"
    preset = rewritten(tmp_path, rename)
    config = tmp_path / "preset/config.json"
    config.write_text(config.read_text().replace("keras_hub", "keras_nlp"))
    with open_preset(str(GOLDEN / "keras_hub/gemma2")).weights() as weights:
        expected = weights.read(path)
    with open_preset(str(config.parent)).weights() as weights:
        np.testing.assert_array_equal(weights.read(path), expected)
    assert preset.config == open_preset(str(config.parent)).config
