"""Gemma 3's config in both forms: RoPE, layer kinds, text beside vision."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gemma.config import Gemma3Config
from gemma.presets import PresetFileError, open_preset

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
NEW = ("rope_parameters", "layer_types", "_sliding_window_pattern", "dtype")


def changed(tmp_path, drop=(), **changes):
    """Copy the golden config of transformers 5 with some keys changed."""
    values = json.loads((GOLDEN / "hf/gemma3/config.json").read_text()) | changes
    kept = {key: value for key, value in values.items() if key not in drop}
    (tmp_path / "config.json").write_text(json.dumps(kept))
    return str(tmp_path)


def golden():
    return open_preset(str(GOLDEN / "hf/gemma3")).config


def test_a_scaled_rope_of_transformers_5_reaches_the_global_layers():
    config = golden()
    assert isinstance(config, Gemma3Config)
    assert config.rope("global").scaling_factor == 8.0
    assert config.rope("global").max_wavelength == 1_000_000.0
    assert config.rope("local").scaling_factor == 1.0
    assert config.intermediate_dim == 128  # once, not twice
    assert config.query_pre_attn_scalar == 24


def test_the_spelling_of_transformers_4_means_the_same(tmp_path):
    older = changed(
        tmp_path,
        drop=NEW,
        rope_theta=1_000_000.0,
        rope_local_base_freq=10_000.0,
        rope_scaling={"factor": 8.0, "rope_type": "linear"},
        sliding_window_pattern=6,
        torch_dtype="bfloat16",
    )
    preset = open_preset(older)
    assert preset.config == golden()
    assert preset.dtype == "bfloat16"


def test_local_layers_may_be_scaled_too(tmp_path):
    ropes = json.loads((GOLDEN / "hf/gemma3/config.json").read_text())[NEW[0]]
    ropes["sliding_attention"] |= {"rope_type": "linear", "factor": 2.0}
    config = open_preset(changed(tmp_path, rope_parameters=ropes)).config
    assert config.local_rope_scaling_factor == 2.0
    assert config.global_rope_scaling_factor == 8.0


def test_a_model_without_windows_is_global_everywhere(tmp_path):
    config = open_preset(changed(tmp_path, layer_types=["full_attention"] * 7)).config
    assert config.attention_pattern == ("global",)


def test_a_multimodal_config_gives_its_text_model(tmp_path):
    text = {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    values = {"model_type": "gemma3", "text_config": text, "torch_dtype": "bfloat16"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    preset = open_preset(str(tmp_path))
    config = preset.config
    # 4B: 8 heads over 4 of 256 dims, and 64 rows more than its tokenizer has pieces
    assert (config.num_query_heads, config.num_key_value_heads) == (8, 4)
    assert (config.head_dim, config.vocabulary_size) == (256, 262_208)
    assert config.parameter_count == 3_880_099_328 + 64 * 2560
    assert config.global_rope_scaling_factor == 8.0
    assert preset.dtype == "bfloat16"


REFUSED = [
    ({"rope_theta": 5.0}, "rope_theta: expected 1000000.0, received 5.0"),
    ({"rope_local_base_freq": 5.0}, "rope_local_base_freq: expected 10000.0"),
    ({"rope_parameters": {"rope_theta": 1e6}}, "full_attention and sliding_attention"),
    ({"rope_parameters": {"full_attention": 3}}, "full_attention: expected an object"),
    ({"rope_scaling": {"rope_type": "yarn"}}, "rope_type: expected 'linear', received"),
    ({"rope_scaling": {"factor": 4.0}}, "rope_scaling.factor: expected 8.0, received"),
    (
        {"rope_parameters": None, "rope_scaling": {"rope_type": "yarn"}},
        "rope_scaling.rope_type: expected 'default' or 'linear', received 'yarn'",
    ),
    (
        {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 0}},
        "rope_scaling.factor: expected a positive number, received 0",
    ),
    (
        {"rope_parameters": None, "rope_scaling": {"type": "linear", "beta": 2}},
        r"expected factor and rope_theta and rope_type, received \['beta'\]",
    ),
    ({"layer_types": ["full_attention"]}, "but full_attention for layers 6n"),
    (
        {"layer_types": None, "sliding_window_pattern": 4},
        "sliding_window_pattern: expected 6 or 1, received 4",
    ),
    ({"model_type": "gemma3"}, "text_config: expected an object, received None"),
    ({"use_bidirectional_attention": True}, "use_bidirectional_attention: expected"),
    (
        {"num_hidden_layers": 10**9, "layer_types": None},
        "num_layers must be at most 1000, received 1000000000",
    ),
    ({"vocab_size": 10**14}, "received others .6400.* parameters"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_is_not_computed_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(PresetFileError, match=message):
        open_preset(changed(tmp_path, **changes))


PREFIXES = ["", "model.language_model.", "language_model.model."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_tensors_are_found_under_each_prefix_and_vision_is_left_alone(tmp_path, prefix):
    shutil.copytree(GOLDEN / "hf/gemma3", tmp_path / "hf")
    path = tmp_path / "hf/model.safetensors"
    path.chmod(0o644)
    tensors = load_file(path)
    renamed = {
        prefix + name.removeprefix("model."): value for name, value in tensors.items()
    }
    if prefix:
        outer = "model." if prefix.startswith("model.") else ""
        renamed[f"{outer}vision_tower.position_ids"] = np.arange(4)
        renamed[f"{outer}multi_modal_projector.weight"] = np.ones(3, "f4")
    path.unlink()
    save_file(renamed, path)
    with open_preset(str(tmp_path / "hf")).weights() as weights:
        norm = weights.read("decoder_block_6/attention/key_norm/scale")
    expected = tensors["model.layers.6.self_attn.k_norm.weight"]
    np.testing.assert_array_equal(norm, expected)


def test_only_the_vision_tensors_of_a_multimodal_directory_are_left_alone(tmp_path):
    shutil.copytree(GOLDEN / "hf/gemma3", tmp_path / "hf")
    path = tmp_path / "hf/model.safetensors"
    tensors = load_file(path)
    path.unlink()
    save_file(tensors | {"vision_tower.x": np.ones(3, "f4")}, path)
    with pytest.raises(PresetFileError, match="received also vision_tower.x"):
        open_preset(str(tmp_path / "hf")).weights()


def keras_config(tmp_path, **changes):
    values = json.loads((GOLDEN / "keras_hub/gemma3/config.json").read_text())
    values["config"] |= changes
    (tmp_path / "config.json").write_text(json.dumps(values))
    return str(tmp_path)


def test_an_image_size_alone_changes_nothing(tmp_path):
    expected = open_preset(str(GOLDEN / "keras_hub/gemma3")).config
    assert open_preset(keras_config(tmp_path, image_size=896)).config == expected


VISION = [
    (
        {"vision_encoder": {"class_name": "Gemma3VisionEncoder", "module": "os"}},
        'vision_encoder: expected null for a causal text model, received "Gemma3V.*; '
        "use the text preset of this size, such as gemma3_4b_text",
    ),
    ({"is_embedding_model": True}, "is_embedding_model: expected false .*, received t"),
    ({"embedding_dim": 3}, "embedding_dim: expected null for a causal text model"),
    ({"lambda": 3}, "expected the arguments of Gemma3Backbone, received also lambda"),
]


@pytest.mark.parametrize(("changes", "message"), VISION)
def test_what_is_more_than_a_text_model_is_refused(tmp_path, changes, message):
    with pytest.raises(PresetFileError, match=message):
        open_preset(keras_config(tmp_path, **changes))
