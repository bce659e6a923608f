"""The real vocabulary of Gemma 3, and text that the real 270M writes."""

import json

import pytest

from gemma import CausalLM, Gemma3CausalLM, Gemma3Tokenizer

pytestmark = pytest.mark.real_weights


@pytest.fixture(scope="module")
def tokenizer(directory):
    return Gemma3Tokenizer.from_preset(directory)


@pytest.fixture(scope="module")
def cases(repository):
    return json.loads((repository / "tests/golden/tokenizer_cases.json").read_text())


@pytest.fixture(scope="module")
def model(directory):
    return CausalLM.from_preset(directory, dtype="float32")


def test_ids_are_those_of_gemma_3(tokenizer, cases):
    for case in cases["cases"]:
        assert tokenizer.detokenize(case["gemma3"]) == case["gemma3_decoded"]
        if case["name"] != "sp_underscore":
            assert tokenizer(case["text"]) == case["gemma3"], case["name"]


def test_a_literal_underscore_of_sentencepiece_joins_the_spaces_beside_it(
    tokenizer, cases
):
    """Hugging Face finds the piece of two before spaces become such underscores."""
    [case] = [case for case in cases["cases"] if case["name"] == "sp_underscore"]
    assert case["text"] == "literal \u2581 and \u2581\u2581 lower_one eighth"
    ours, theirs = tokenizer(case["text"]), case["gemma3"]
    assert [tokenizer.id_to_token(i) for i in ours[3:5]] == ["\u2581" * 4, "lower"]
    assert [tokenizer.id_to_token(i) for i in theirs[3:6]] == [
        "\u2581",
        "\u2581" * 2,
        "\u2581lower",
    ]
    assert ours[:3] + ours[5:] == theirs[:3] + theirs[6:]


def test_text_cannot_spell_bos_eos_and_padding(tokenizer, cases):
    for case in cases["control_text"]:
        assert tokenizer(case["text"]) == case["gemma3_spm"], case["name"]


def test_special_ids(tokenizer):
    assert tokenizer.special_token_ids == (2, 1, 0)
    assert (tokenizer.start_of_turn_id, tokenizer.end_of_turn_id) == (105, 106)
    assert tokenizer.vocabulary_size() == 262_144
    content = tokenizer.encode_content(["<start_of_image><end_of_turn>"])[0]
    assert not {255_999, 106} & set(content.tolist())


def test_a_function_goes_on_as_one(model):
    assert type(model) is Gemma3CausalLM
    prompt = "def fibonacci(n):"
    text = model.generate(prompt, max_length=64)
    assert text.startswith(prompt)
    assert "return" in text and "n" in text.removeprefix(prompt)


def test_a_batch_and_a_stop_string(model):
    prompts = ["The capital of France is", "def fibonacci(n):"]
    alone = [model.generate(prompt, max_length=40) for prompt in prompts]
    assert model.generate(prompts, max_length=40) == alone
    cut = model.generate(
        prompts[1], max_length=40, stop_sequences=["return"], strip_prompt=True
    )
    assert cut and alone[1].startswith(prompts[1] + cut + "return")
