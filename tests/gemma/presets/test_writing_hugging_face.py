"""A directory in Hugging Face's form is transformers' tensor for tensor."""

import dataclasses
import json
import pathlib

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from gemma.config import Gemma3Config, GemmaConfig
from gemma.presets import open_preset, write_hf, write_preset

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
NAMES = ["gemma", "gemma2", "gemma3"]
DIMENSIONS = {
    "vocabulary_size": 16,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "head_dim": 6,
}
POST_NORMS = {"use_post_ffw_norm": True, "use_post_attention_norm": True}


def copy(directory, target, **options):
    """Read a preset of either form and write it in Hugging Face's."""
    preset = open_preset(str(directory))
    defaults = {"dtype": preset.dtype, "vocabulary": preset.vocabulary()}
    with preset.weights() as weights:
        write_hf(
            target, config=preset.config, arrays=weights.read, **defaults | options
        )
    return preset


def write_random(config, target, **options):
    shapes, rng = config.parameter_shapes(), np.random.default_rng(0)
    arrays = {p: rng.normal(size=s).astype(np.float32) for p, s in shapes.items()}
    defaults = {"dtype": "float32", "vocabulary": None, "arrays": arrays.get}
    write_hf(target, config=config, **defaults | options)
    return arrays


@pytest.mark.parametrize("name", NAMES)
def test_tensors_are_those_of_transformers(tmp_path, name):
    copy(GOLDEN / "hf" / name, tmp_path)
    ours = load_file(tmp_path / "model.safetensors")
    theirs = load_file(GOLDEN / "hf" / name / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for tensor, values in theirs.items():
        np.testing.assert_array_equal(ours[tensor], values)
    with safe_open(tmp_path / "model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("name", NAMES)
def test_the_config_says_what_transformers_says(tmp_path, name):
    preset = copy(GOLDEN / "hf" / name, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    golden = json.loads((GOLDEN / "hf" / name / "config.json").read_text())
    ignored = {"transformers_version", "hidden_act", "max_position_embeddings"}
    ignored |= {"use_bidirectional_attention", "_sliding_window_pattern"}
    assert {key: written.get(key) for key in golden.keys() - ignored} == {
        key: golden[key] for key in golden.keys() - ignored
    }
    assert open_preset(str(tmp_path)).config == preset.config


def test_a_scaled_rope_is_there_for_transformers_4_too(tmp_path):
    copy(GOLDEN / "hf/gemma3", tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["rope_scaling"] == {"factor": 8.0, "rope_type": "linear"}
    assert written["rope_theta"] == 1_000_000.0
    assert written["rope_local_base_freq"] == 10_000.0


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_of_keras_hub_goes_there_and_back(tmp_path, name):
    golden = copy(GOLDEN / "keras_hub" / name, tmp_path)
    written = open_preset(str(tmp_path))
    assert written.config == golden.config
    assert written.vocabulary() == golden.vocabulary()
    with written.weights() as ours, golden.weights() as theirs:
        for path in theirs.paths():
            np.testing.assert_array_equal(ours.read(path), theirs.read(path))


def test_generation_ends_with_the_turn(tmp_path):
    copy(GOLDEN / "keras_hub/gemma2", tmp_path)
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 2, "eos_token_id": [1, 6], "pad_token_id": 0}
    tokenizer = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "GemmaTokenizer"


def test_shards_have_an_index_and_are_read_as_one(tmp_path):
    config = GemmaConfig(**DIMENSIONS)
    arrays = write_random(config, tmp_path, dtype="bfloat16", max_shard_bytes=900)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2 * config.parameter_count
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == sorted(set(index["weight_map"].values()))
    assert len(files) > 2
    assert all((tmp_path / name).stat().st_size < 900 + 1000 for name in files)
    for tensor, name in index["weight_map"].items():
        assert tensor in load_file(tmp_path / name)
    with open_preset(str(tmp_path)).weights() as weights:
        for path, values in arrays.items():
            expected = values.astype(ml_dtypes.bfloat16)
            np.testing.assert_array_equal(weights.read(path), expected)


def test_nothing_of_an_older_preset_of_either_form_is_left(tmp_path):
    config = GemmaConfig(**DIMENSIONS)
    golden = open_preset(str(GOLDEN / "keras_hub/gemma"))
    with golden.weights() as weights:
        write_preset(
            tmp_path,
            config=golden.config,
            dtype="float32",
            arrays=weights.read,
            vocabulary=golden.vocabulary(),
        )
    write_random(config, tmp_path)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"config.json", "generation_config.json", "model.safetensors"}
    write_random(config, tmp_path, max_shard_bytes=2000)
    assert not (tmp_path / "model.safetensors").exists()


def test_an_array_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must have shape \(16, 8\), received \(1,\)"):
        write_random(
            GemmaConfig(**DIMENSIONS), tmp_path, arrays=lambda path: np.zeros(1)
        )
    assert not (tmp_path / "config.json").exists()


def test_an_unknown_dtype_is_refused(tmp_path):
    with pytest.raises(ValueError, match="dtype must be bfloat16 or float32, received"):
        write_random(GemmaConfig(**DIMENSIONS), tmp_path, dtype="float16")


INEXPRESSIBLE = [
    (GemmaConfig, {"final_logit_soft_cap": 3.0}, "final_logit_soft_cap must be None"),
    (
        GemmaConfig,
        {"query_head_dim_normalize": False},
        "normalize must be True .*gemma",
    ),
    (GemmaConfig, {"use_post_ffw_norm": True}, "attention_norm must be True .*gemma2"),
    (Gemma3Config, {}, "use_post_ffw_norm must be True for transformers' gemma3_text"),
    (
        Gemma3Config,
        POST_NORMS | {"use_query_key_norm": False},
        "use_query_key_norm must be True",
    ),
]


@pytest.mark.parametrize(("kind", "changes", "message"), INEXPRESSIBLE)
def test_what_transformers_cannot_compute_is_refused_first(
    tmp_path, kind, changes, message
):
    (tmp_path / "config.json").write_text("kept")
    with pytest.raises(ValueError, match=message):
        write_random(kind(**DIMENSIONS | changes), tmp_path)
    assert (tmp_path / "config.json").read_text() == "kept"


VARIANTS = [
    (GemmaConfig, POST_NORMS),
    (GemmaConfig, POST_NORMS | {"use_sliding_window_attention": True}),
    (GemmaConfig, POST_NORMS | {"query_head_dim_normalize": False}),
    (GemmaConfig, POST_NORMS | {"query_pre_attn_scalar": 5.5}),
    (Gemma3Config, POST_NORMS),
    (Gemma3Config, POST_NORMS | {"use_sliding_window_attention": True}),
    (Gemma3Config, POST_NORMS | {"local_rope_scaling_factor": 2.0}),
]


@pytest.mark.parametrize(("kind", "changes"), VARIANTS)
def test_every_switch_that_can_be_said_comes_back(tmp_path, kind, changes):
    config = kind(**DIMENSIONS | changes)
    write_random(config, tmp_path)
    read = open_preset(str(tmp_path)).config
    if not config.use_sliding_window_attention:  # the window of no layer
        read = dataclasses.replace(read, sliding_window_size=config.sliding_window_size)
    assert read == config
