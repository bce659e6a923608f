"""The hash of a base: the same for a model's every dtype and form, and for no other."""

import numpy as np
import pytest

from gemma import Backbone, GemmaBackbone
from gemma.adapters import base_hash
from gemma.adapters.base import central_block
from gemma.config import GemmaConfig
from gemma.presets import PresetFileError, open_preset


def hash_of_files(directory):
    preset = open_preset(str(directory))
    with preset.weights() as weights:
        return base_hash(preset.config, weights.read)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 32, 8), (slice(0, 4), slice(12, 20), slice(0, 8))),
        ((256000, 2304), (slice(127996, 128004), slice(1148, 1156))),
        ((9,), (slice(0, 8),)),
    ],
)
def test_the_block_in_the_middle_is_hashed(shape, expected):
    assert central_block(shape) == expected


def test_a_hash_is_what_its_definition_says():
    config = GemmaConfig(
        vocabulary_size=9,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=8,
        intermediate_dim=16,
        head_dim=4,
    )
    found = base_hash(config, lambda path, index: np.ones([9] * len(index))[index])
    # hashlib alone over the lines and their bytes, 80 3f for each 1.0
    assert found == (
        "central8-bfloat16-sha256:"
        "888d621e7364d5e34287a12d0c1a22c59c4fe352c344d32f0f40e065e748334d"
    )


def test_files_and_models_of_every_dtype_and_form_have_one_hash(
    keras_hub_golden, tmp_path
):
    directory, _ = keras_hub_golden
    expected = hash_of_files(directory)
    for dtype in ("float32", "bfloat16"):
        backbone = Backbone.from_preset(str(directory), dtype=dtype)
        assert backbone.base_hash() == expected
        backbone.save_to_preset(str(tmp_path / dtype))
        assert hash_of_files(tmp_path / dtype) == expected
        backbone.save_to_hf(str(tmp_path / f"hf_{dtype}"))
        assert hash_of_files(tmp_path / f"hf_{dtype}") == expected


def test_adapters_do_not_change_the_hash(build):
    backbone = build("gemma2", 1, fresh=True)
    before = backbone.base_hash()
    backbone.enable_lora(2, ["*"])
    for variable in backbone.weights:
        if variable.path.endswith("lora_kernel_b"):
            variable.assign(np.ones(variable.shape))
    assert backbone.base_hash() == before
    backbone.merge_lora()
    assert backbone.base_hash() == before


def test_a_step_of_training_changes_the_hash(build):
    backbone = build("gemma2", 1, fresh=True)
    before = backbone.base_hash()
    kernel = backbone.blocks[0].ffw_linear.kernel
    kernel.assign(kernel.value * 1.01)
    assert backbone.base_hash() != before


def test_an_adapter_of_other_weights_is_refused(build, tmp_path):
    backbone = build("gemma2", 1, fresh=True)
    backbone.enable_lora(2)
    path = str(tmp_path / "adapter.lora.h5")
    backbone.save_lora_weights(path)
    other = build("gemma2", 1, fresh=True)
    embeddings = other.token_embedding.embeddings
    embeddings.assign(-embeddings.value)
    message = (
        f"{path}: expected the base it was trained on, None "
        rf"\({backbone.base_hash()}\), received a model of random weights "
        rf"\({other.base_hash()}\); use that base"
    )
    with pytest.raises(PresetFileError, match=message):
        other.load_lora_weights(path)
    assert other.lora is None


def test_an_adapter_names_the_preset_it_was_trained_on(tmp_path, repository):
    directory = str(repository / "tests/golden/keras_hub/gemma")
    backbone = GemmaBackbone.from_preset(directory)
    backbone.enable_lora(2)
    backbone.save_lora_weights(str(tmp_path / "adapter.lora.h5"))
    text = (tmp_path / "adapter.json").read_text()
    assert f'"base": "{directory}"' in text
    assert f'"base_hash": "{backbone.base_hash()}"' in text


def test_both_forms_of_an_adapter_lie_in_one_directory(build, tmp_path):
    backbone = build("gemma2", 1, fresh=True)
    backbone.enable_lora(2, alpha=6.0)
    path = str(tmp_path / "adapter.lora.h5")
    backbone.save_lora_weights(path)
    backbone.save_peft_adapter(str(tmp_path))
    backbone.load_lora_weights(path)
    backbone.save_lora_weights(path)
    backbone.load_peft_adapter(str(tmp_path))


def test_a_quantized_model_has_the_hash_of_its_float_weights(keras_hub_golden):
    directory, _ = keras_hub_golden
    backbone = Backbone.from_preset(str(directory), quantize="int8")
    assert backbone.base_hash() == hash_of_files(directory)


def test_a_model_quantized_in_memory_knows_what_it_was(build, tmp_path):
    backbone = build("gemma2", 1, fresh=True)
    expected = backbone.base_hash()
    backbone.quantize("int8")
    assert backbone.base_hash() == expected
    backbone.enable_lora(2)
    path = str(tmp_path / "adapter.lora.h5")
    backbone.save_lora_weights(path)
    backbone.load_lora_weights(path)
    other = build("gemma2", 1, fresh=True)
    embeddings = other.token_embedding.embeddings
    embeddings.assign(-embeddings.value)
    other.quantize("int8")
    with pytest.raises(PresetFileError, match="the base it was trained on"):
        other.load_lora_weights(path)


def test_adapters_of_a_float16_model_are_saved_and_loaded_without_a_hash(
    build, tmp_path
):
    trained = build("gemma2", 1, fresh=True)
    trained.enable_lora(2)
    path = str(tmp_path / "adapter.lora.h5")
    trained.save_lora_weights(path)
    backbone = build("gemma2", 1, fresh=True, dtype="float16")
    assert backbone.base_hash() != trained.base_hash()  # rounded to other numbers
    backbone.load_lora_weights(path)
    backbone.save_lora_weights(path)
    assert '"base_hash": null' in (tmp_path / "adapter.json").read_text()
    backbone.load_lora_weights(path)
