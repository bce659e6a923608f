"""Both spellings of transformers are read; settings that we do not compute are not."""

import json
import pathlib
import shutil

import ml_dtypes
import pytest
from safetensors.numpy import load_file, save_file

from gemma.presets import PresetFileError, open_preset

GOLDEN = pathlib.Path(__file__).parents[2] / "golden/hf"


def changed(tmp_path, name="gemma2", drop=(), **changes):
    """Copy a golden config with some keys changed."""
    values = json.loads((GOLDEN / name / "config.json").read_text()) | changes
    kept = {key: value for key, value in values.items() if key not in drop}
    (tmp_path / "config.json").write_text(json.dumps(kept))
    return str(tmp_path)


def test_the_older_spelling_means_the_same(tmp_path):
    older = changed(
        tmp_path,
        drop=("rope_parameters", "layer_types", "dtype", "use_bidirectional_attention"),
        rope_theta=10000.0,
        rope_scaling=None,
        torch_dtype="bfloat16",
    )
    preset = open_preset(older)
    assert preset.config == open_preset(str(GOLDEN / "gemma2")).config
    assert preset.dtype == "bfloat16"


def test_first_gemma_files_say_gelu_and_mean_the_tanh_form(tmp_path):
    older = changed(tmp_path, "gemma", hidden_act="gelu", hidden_activation=None)
    assert open_preset(older).config == open_preset(str(GOLDEN / "gemma")).config


def test_27b_divides_its_query_by_hidden_size_over_heads(tmp_path):
    # 4608 / 32 heads = 144, with a head_dim of 128.
    other = changed(
        tmp_path,
        hidden_size=4608,
        num_attention_heads=32,
        num_key_value_heads=16,
        head_dim=128,
        query_pre_attn_scalar=144,
    )
    config = open_preset(other).config
    assert not config.query_head_dim_normalize
    assert config.query_scale == 144**-0.5


def test_epsilon_and_absent_caps_are_read(tmp_path):
    config = open_preset(
        changed(tmp_path, rms_norm_eps=1e-5, attn_logit_softcapping=None)
    ).config
    assert config.layer_norm_epsilon == 1e-5
    assert config.attention_logit_soft_cap is None
    assert config.final_logit_soft_cap == 30.0


REFUSED = [
    (
        {"model_type": "llama"},
        "model_type: expected gemma or gemma2 or .*, received 'llama'",
    ),
    ({"attention_bias": True}, "attention_bias: expected False or None, received True"),
    ({"tie_word_embeddings": False}, "tie_word_embeddings: expected True or None"),
    ({"hidden_activation": "relu"}, "hidden_activation: expected 'gelu_pytorch_tanh'"),
    ({"use_bidirectional_attention": True}, "use_bidirectional_attention: expected"),
    ({"quantization_config": {"bits": 4}}, "quantization_config: expected None"),
    ({"rope_theta": 1e6}, "rope_theta: expected 10000.0, received 1000000.0"),
    ({"rope_scaling": {"factor": 8}}, "rope_scaling: expected null"),
    ({"rope_parameters": 3}, "rope_parameters: expected an object"),
    ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type: expected 'default'"),
    ({"rope_parameters": {"rope_theta": 5}}, "rope_parameters.rope_theta: expected"),
    ({"rope_parameters": {"factor": 8}}, "expected rope_theta and rope_type, received"),
    (
        {"rope_parameters": {"rope_type": "linear", "factor": 8}},
        "rope_parameters.rope_type: expected 'default', received 'linear'",
    ),
    ({"dtype": "int8"}, "dtype: expected float32 or bfloat16 or float16"),
    ({"hidden_size": None}, "hidden_size: expected an integer, received None"),
    ({"rms_norm_eps": "x"}, "rms_norm_eps: expected a number, received 'x'"),
    ({"num_key_value_heads": 3}, "expected dimensions of a Gemma model"),
    ({"query_pre_attn_scalar": "7"}, "query_pre_attn_scalar: expected a number"),
    ({"layer_types": ["full_attention"] * 3}, "but full_attention for layers 2n"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_is_not_computed_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(PresetFileError, match=message):
        open_preset(changed(tmp_path, **changes))


def test_gemma_1_has_no_settings_of_gemma_2(tmp_path):
    with pytest.raises(PresetFileError, match="final_logit_softcapping: expected None"):
        open_preset(changed(tmp_path, "gemma", final_logit_softcapping=30.0))


def test_tensors_without_prefix_and_old_buffers_are_read(tmp_path):
    shutil.copytree(GOLDEN / "gemma", tmp_path / "hf")
    path = tmp_path / "hf/model.safetensors"
    tensors = load_file(path)
    bare = {name.removeprefix("model."): value for name, value in tensors.items()}
    buffer = {"layers.0.self_attn.rotary_emb.inv_freq": bare["norm.weight"]}
    save_file(bare | buffer, path)
    with open_preset(str(tmp_path / "hf")).weights() as weights:
        scale = weights.read("final_normalization/scale")
        assert (scale == tensors["model.norm.weight"]).all()


def test_bfloat16_tensors_are_read_bit_for_bit(tmp_path):
    shutil.copytree(GOLDEN / "gemma2", tmp_path / "hf")
    path = tmp_path / "hf/model.safetensors"
    bfloat16 = ml_dtypes.bfloat16
    tensors = {name: v.astype(bfloat16) for name, v in load_file(path).items()}
    save_file(tensors, path)
    with open_preset(str(tmp_path / "hf")).weights() as weights:
        gate = weights.read("decoder_block_1/ffw_gating/kernel", (slice(3, 9),))
        assert gate.dtype == weights.dtype("decoder_block_1/ffw_gating/kernel")
        expected = tensors["model.layers.1.mlp.gate_proj.weight"].T[3:9]
        assert (gate.view("u2") == expected.view("u2")).all()
