"""The causal language model: logits, generation from strings, presets."""

import json

import numpy as np
import pytest

from gemma import GemmaCausalLM

PROMPT = 'Define the noun "sea".'
LENGTH = 20


@pytest.fixture(scope="module")
def directory(repository):
    return str(repository / "tests/golden/keras_hub/gemma2")


@pytest.fixture(scope="module")
def model(directory):
    return GemmaCausalLM.from_preset(directory)


def greedy(model, prompt, max_length):
    """Continue by calling the model anew for every token."""
    tokenizer = model.preprocessor.tokenizer
    ids = [tokenizer.start_token_id, *tokenizer(prompt)]
    answer = []
    while len(ids) < max_length:
        # one shape for all steps; what follows a token cannot change its logits
        token_ids = np.array([ids + [0] * (max_length - len(ids))])
        inputs = {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}
        ids.append(int(np.asarray(model(inputs))[0, len(ids) - 1].argmax()))
        answer.append(ids[-1])
    return answer


@pytest.fixture(scope="module")
def answer(model):
    return greedy(model, PROMPT, LENGTH)


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


def test_generate_appends_the_likeliest_tokens(model, answer):
    text = model.generate(PROMPT, max_length=LENGTH, stop_token_ids=None)
    assert text == PROMPT + model.preprocessor.tokenizer.detokenize(answer)


def test_several_prompts_give_a_list_each_as_if_alone(model, answer):
    texts = model.generate(["sea", PROMPT], max_length=LENGTH, stop_token_ids=None)
    assert texts[1] == PROMPT + model.preprocessor.tokenizer.detokenize(answer)
    assert texts[0] == model.generate("sea", LENGTH, stop_token_ids=None)


def test_generate_ends_before_a_stop_token(model, answer):
    stop = answer[3]
    text = model.generate(PROMPT, max_length=LENGTH, stop_token_ids=[stop])
    kept = answer[: answer.index(stop)]
    assert text == PROMPT + model.preprocessor.tokenizer.detokenize(kept)


@pytest.mark.parametrize("name", ["end_token_id", "end_of_turn_id"])
def test_end_of_sequence_and_end_of_turn_end_a_text(model, answer, monkeypatch, name):
    monkeypatch.setattr(model.preprocessor.tokenizer, name, answer[0])
    assert model.generate(PROMPT, max_length=LENGTH) == PROMPT


def test_the_default_length_is_the_preprocessors(model):
    text = model.generate(PROMPT, stop_token_ids=None)
    assert model.preprocessor.sequence_length == 24
    assert text == model.generate(PROMPT, max_length=24, stop_token_ids=None)


def test_generate_follows_a_change_of_weights(directory, randomise):
    model = GemmaCausalLM.from_preset(directory)
    before = model.generate(PROMPT, max_length=LENGTH, stop_token_ids=None)
    randomise(model.backbone)
    after = model.generate(PROMPT, max_length=LENGTH, stop_token_ids=None)
    answer = greedy(model, PROMPT, LENGTH)
    assert after == PROMPT + model.preprocessor.tokenizer.detokenize(answer) != before


def test_generate_follows_adapters_that_come_later(directory):
    model = GemmaCausalLM.from_preset(directory)
    before = model.generate(PROMPT, max_length=LENGTH, stop_token_ids=None)
    model.backbone.load_lora_weights(f"{directory}/adapter.lora.h5")
    after = model.generate(PROMPT, max_length=LENGTH, stop_token_ids=None)
    answer = greedy(model, PROMPT, LENGTH)
    assert after == PROMPT + model.preprocessor.tokenizer.detokenize(answer) != before


def test_unchanged_weights_are_stacked_once(model):
    model.generate(PROMPT, max_length=LENGTH)
    first = model._generator._weights
    model.generate("sea", max_length=LENGTH)
    assert model._generator._weights is first


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


def test_generate_without_preprocessor_says_what_to_do(build):
    model = GemmaCausalLM(build(num_layers=1))
    with pytest.raises(ValueError, match="generate needs a preprocessor, received"):
        model.generate("sea")


def test_a_prompt_that_fills_the_length_is_refused(model):
    with pytest.raises(ValueError, match="more than the 8 tokens of prompt 1, rec"):
        model.generate(["sea", PROMPT], max_length=8)


def test_an_unknown_word_for_stop_tokens_is_refused(model):
    with pytest.raises(ValueError, match="'auto', None or a list of ids, received 'e"):
        model.generate(PROMPT, stop_token_ids="eos")


def test_no_prompt_is_refused(model):
    with pytest.raises(ValueError, match="prompts must be at least one"):
        model.generate([])
