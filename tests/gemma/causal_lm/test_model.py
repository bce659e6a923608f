"""The causal language model: logits, presets, classes, what `compile` sets."""

import json

import numpy as np
import pytest

from gemma import (
    CausalLM,
    Gemma3CausalLM,
    Gemma3CausalLMPreprocessor,
    GemmaCausalLM,
    GemmaCausalLMPreprocessor,
)
from gemma.decoding import GREEDY, SAMPLERS, Sampler
from gemma.presets import PresetFileError

PROMPT = 'Define the noun "sea".'
LENGTH = 20


@pytest.fixture(scope="module")
def model(directory):
    return GemmaCausalLM.from_preset(directory)


def test_logits_are_those_of_keras_hub(model, directory):
    golden = np.load(f"{directory}/golden.npz")
    logits = model({k: golden[k] for k in ("token_ids", "padding_mask")})
    assert logits.dtype == "float32"
    valid = golden["padding_mask"].astype(bool)
    np.testing.assert_allclose(
        np.asarray(logits)[valid], golden["logits"][valid], atol=1e-5, rtol=1e-5
    )


def test_it_has_no_weights_of_its_own(model):
    own = {v.path for v in model.variables}
    assert own == set(model.backbone.gemma_config.parameter_shapes())


def test_a_saved_preset_is_the_same_model(model, tmp_path):
    model.preprocessor.sequence_length = 30
    model.save_to_preset(str(tmp_path))
    model.preprocessor.sequence_length = 24
    again = GemmaCausalLM.from_preset(str(tmp_path))
    assert again.preprocessor.sequence_length == 30
    assert json.loads((tmp_path / "task.json").read_text())["class_name"] == (
        "GemmaCausalLM"
    )
    expected = model.generate(PROMPT, max_length=LENGTH, stop_token_ids=None)
    assert again.generate(PROMPT, LENGTH, stop_token_ids=None) == expected


def test_a_saved_preset_keeps_which_tokens_are_added(directory, tmp_path):
    tokens = {"add_start_token": False, "add_end_token": False}
    source = GemmaCausalLM.from_preset(directory)
    tokenizer = source.preprocessor.tokenizer
    preprocessor = GemmaCausalLMPreprocessor(tokenizer, 20, **tokens)
    GemmaCausalLM(source.backbone, preprocessor).save_to_preset(str(tmp_path))
    for name in ("preprocessor.json", "task.json"):
        written = json.loads((tmp_path / name).read_text())["config"]
        written = written.get("preprocessor", {"config": written})["config"]
        assert tokens.items() <= written.items()
    again = GemmaCausalLM.from_preset(str(tmp_path)).preprocessor
    assert again.get_config() == {"sequence_length": 20, **tokens}
    asked = GemmaCausalLMPreprocessor.from_preset(str(tmp_path), add_start_token=True)
    assert (asked.add_start_token, asked.add_end_token) == (True, False)


def test_a_model_without_tokenizer_can_be_saved_too(build, tmp_path):
    GemmaCausalLM(build(num_layers=1)).save_to_preset(str(tmp_path))
    model = GemmaCausalLM.from_preset(str(tmp_path))
    assert model.preprocessor is None
    assert model.backbone.gemma_config == build(num_layers=1).gemma_config


def test_its_configuration_builds_it_again(model):
    again = GemmaCausalLM.from_config(model.get_config())
    assert again.name == model.name
    assert again.backbone.get_config() == model.backbone.get_config()


def test_arguments_of_the_backbone_override_the_presets(directory):
    model = GemmaCausalLM.from_preset(directory, load_weights=False, dtype="bfloat16")
    assert {v.dtype for v in model.variables} == {"bfloat16"}
    assert model.output.dtype == "float32"


def test_the_base_class_finds_the_class_of_a_preset(directory, gemma3_directory):
    assert type(CausalLM.from_preset(directory)) is GemmaCausalLM
    model = CausalLM.from_preset(gemma3_directory, load_weights=False)
    assert type(model) is Gemma3CausalLM
    assert type(model.preprocessor) is Gemma3CausalLMPreprocessor


@pytest.mark.parametrize("own", [True, False])
def test_a_preset_of_another_class_is_refused(directory, gemma3_directory, own):
    asked, right = GemmaCausalLM, Gemma3CausalLM
    if not own:
        asked, right = right, asked
    preset = gemma3_directory if own else directory
    with pytest.raises(PresetFileError, match=f"{right.__name__}.from_preset"):
        asked.from_preset(preset)


def test_a_gemma_3_comes_back_from_its_preset(gemma3_directory, tmp_path):
    model = Gemma3CausalLM.from_preset(gemma3_directory)
    model.save_to_preset(str(tmp_path))
    task = json.loads((tmp_path / "task.json").read_text())
    assert task["registered_name"] == "keras_hub>Gemma3CausalLM"
    again = Gemma3CausalLM.from_preset(str(tmp_path))
    ids = {"token_ids": [[2, 5, 9]], "padding_mask": [[1, 1, 1]]}
    ids = {name: np.array(value) for name, value in ids.items()}
    np.testing.assert_array_equal(again(ids), model(ids))
    assert Gemma3CausalLM.from_config(model.get_config()).name == model.name


def test_compile_has_the_defaults_of_keras_hub(directory):
    model = GemmaCausalLM.from_preset(directory)
    assert model.sampler == GREEDY
    model.compile(sampler="top_k")
    assert type(model.optimizer).__name__ == "Adam"
    assert float(model.optimizer.learning_rate) == pytest.approx(2e-5)
    assert model.loss.get_config()["from_logits"]
    assert model.sampler == SAMPLERS["top_k"] == Sampler(top_k=5)


def test_compile_takes_other_choices(directory):
    model = GemmaCausalLM.from_preset(directory)
    model.compile("sgd", loss="mse", weighted_metrics=None, sampler=Sampler(top_p=0.9))
    assert type(model.optimizer).__name__ == "SGD"
    assert model.loss == "mse"
    assert model.sampler == Sampler(top_p=0.9)


def test_compile_refuses_an_unknown_sampler(model):
    with pytest.raises(ValueError, match="sampler must be a Sampler or one of greedy"):
        model.compile(sampler="contrastive")
