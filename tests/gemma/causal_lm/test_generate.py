"""`generate`: prompts of every kind, stops, samplers, compilations."""

import numpy as np
import pytest

from gemma import GemmaCausalLM
from gemma.decoding import Sampler

PROMPT = 'Define the noun "sea".'
LENGTH = 20
HOT = {"sampler": Sampler(temperature=3.0), "stop_token_ids": None}


@pytest.fixture(scope="module")
def answer(model, greedy):
    return greedy(model, PROMPT, LENGTH)


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


def test_the_default_length_is_the_preprocessors(model, monkeypatch):
    monkeypatch.setattr(model.preprocessor, "sequence_length", 24)
    text = model.generate(PROMPT, stop_token_ids=None)
    length = model.preprocessor.sequence_length
    assert text == model.generate(PROMPT, max_length=length, stop_token_ids=None)


def test_generate_follows_a_change_of_weights(directory, randomise, greedy):
    model = GemmaCausalLM.from_preset(directory)
    before = model.generate(PROMPT, max_length=LENGTH, stop_token_ids=None)
    randomise(model.backbone)
    after = model.generate(PROMPT, max_length=LENGTH, stop_token_ids=None)
    answer = greedy(model, PROMPT, LENGTH)
    assert after == PROMPT + model.preprocessor.tokenizer.detokenize(answer) != before


def test_generate_follows_adapters_that_come_later(directory, greedy):
    model = GemmaCausalLM.from_preset(directory)
    before = model.generate(PROMPT, max_length=LENGTH, stop_token_ids=None)
    model.backbone.load_lora_weights(f"{directory}/adapter.lora.h5")
    after = model.generate(PROMPT, max_length=LENGTH, stop_token_ids=None)
    answer = greedy(model, PROMPT, LENGTH)
    assert after == PROMPT + model.preprocessor.tokenizer.detokenize(answer) != before


def test_strip_prompt_returns_only_what_was_added(model, answer):
    added = model.generate(PROMPT, LENGTH, stop_token_ids=None, strip_prompt=True)
    assert added == model.preprocessor.tokenizer.detokenize(answer)


def test_arrays_of_ids_come_back_with_what_was_added(model, answer):
    x = model.preprocessor.generate_preprocess([PROMPT, "sea"], sequence_length=LENGTH)
    found = model.generate(x, stop_token_ids=None)
    prompt = x["token_ids"][0][x["padding_mask"][0]]
    assert found["token_ids"].shape == found["padding_mask"].shape == (2, LENGTH)
    assert found["token_ids"][0].tolist() == [*prompt, *answer]
    assert found["padding_mask"].all()
    added = model.generate(x, stop_token_ids=None, strip_prompt=True)
    assert added["token_ids"][0].tolist() == [*answer, *[0] * len(prompt)]
    assert added["padding_mask"][0].sum() == len(answer)


def test_prompts_with_responses_go_on_after_them(model):
    whole = model.generate("Define the noun", LENGTH, stop_token_ids=None)
    parts = {"prompts": ["Define"], "responses": [" the noun"]}
    assert model.generate(parts, LENGTH, stop_token_ids=None) == [whole]
    assert model.generate({"prompts": PROMPT}, LENGTH) == model.generate(PROMPT, LENGTH)


def test_a_text_ends_before_a_stop_sequence_of_ids(model):
    text = model.generate(PROMPT, LENGTH, strip_prompt=True, **HOT)
    ids = model.generate(
        {"token_ids": np.array([[2, *model.preprocessor.tokenizer(PROMPT)]])},
        LENGTH,
        strip_prompt=True,
        **HOT,
    )["token_ids"][0]
    cut = model.generate(
        PROMPT, LENGTH, strip_prompt=True, stop_sequences=[ids[3:5]], **HOT
    )
    assert cut == model.preprocessor.tokenizer.detokenize(ids[:3])
    assert text.startswith(cut)


def test_a_text_ends_before_a_stop_string(model):
    """A string in the middle of a token: no sequence of ids would find it."""
    text = model.generate(PROMPT, LENGTH, strip_prompt=True, seed=1, **HOT)
    stop = text[len(text) // 2 :][:3]
    cut = model.generate(
        PROMPT, LENGTH, strip_prompt=True, stop_sequences=[stop], seed=1, **HOT
    )
    assert cut == text[: text.index(stop)]


def test_a_seed_gives_the_same_text_and_another_seed_another(model):
    one, same, other = (
        model.generate(PROMPT, LENGTH, seed=seed, **HOT) for seed in (1, 1, 2)
    )
    assert one == same != other


def test_compile_chooses_the_sampler(directory):
    model = GemmaCausalLM.from_preset(directory)
    greedy = model.generate(PROMPT, LENGTH, stop_token_ids=None)
    model.compile(sampler="random")
    drawn = model.generate(PROMPT, LENGTH, stop_token_ids=None)
    assert drawn != greedy
    assert model.generate(PROMPT, LENGTH, None, sampler="greedy") == greedy


def test_a_second_prompt_compiles_nothing_and_compile_forgets(directory):
    model = GemmaCausalLM.from_preset(directory)
    model.generate(PROMPT, LENGTH)
    model.generate("sea", LENGTH)
    assert model._continuer.programs == 1
    model.generate(["sea", "see"], LENGTH)
    assert model._continuer.programs == 2
    model.compile()
    assert model._continuer.programs == 0


def test_generate_in_bfloat16(directory):
    model = GemmaCausalLM.from_preset(directory, dtype="bfloat16")
    text = model.generate(PROMPT, LENGTH, stop_token_ids=None)
    assert text.startswith(PROMPT) and len(text) > len(PROMPT)


def test_generate_without_preprocessor_says_what_to_do(build):
    model = GemmaCausalLM(build(num_layers=1))
    with pytest.raises(ValueError, match="generate needs a preprocessor, received"):
        model.generate("sea", stop_token_ids=None)


def test_a_prompt_that_fills_the_length_is_refused(model):
    with pytest.raises(ValueError, match="more than the 8 tokens of prompt 1, rec"):
        model.generate(["sea", PROMPT], max_length=8)


def test_an_unknown_word_for_stop_tokens_is_refused(model):
    with pytest.raises(ValueError, match="'auto', None or a list of ids, received 'e"):
        model.generate(PROMPT, stop_token_ids="eos")


def test_no_prompt_is_refused(model):
    with pytest.raises(ValueError, match="prompts must be at least one"):
        model.generate([])


def test_auto_without_preprocessor_is_refused(build):
    with pytest.raises(ValueError, match="'auto' needs a preprocessor, received None"):
        GemmaCausalLM(build(num_layers=1)).generate("sea")


def test_ids_without_preprocessor(build):
    model = GemmaCausalLM(build(num_layers=1))
    found = model.generate({"token_ids": np.array([[2, 7]])}, 5, stop_token_ids=None)
    assert found["padding_mask"].tolist() == [[True] * 5]
    with pytest.raises(ValueError, match="sequence 'x' needs a preprocessor"):
        model.generate("sea", stop_token_ids=None, stop_sequences=["x"])


def test_ids_of_another_shape_are_refused(model):
    with pytest.raises(ValueError, match=r"\[batch, seq\], received \[2\] and \[2\]"):
        model.generate({"token_ids": np.array([2, 7])})


def test_an_empty_stop_string_is_refused(model):
    with pytest.raises(ValueError, match="must hold no empty string"):
        model.generate(PROMPT, stop_sequences=[""])
