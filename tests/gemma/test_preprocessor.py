"""The preprocessor: KerasHub's outputs, by hand."""

import pathlib

import numpy as np
import pytest

from gemma.preprocessors import (
    Gemma3CausalLMPreprocessor,
    GemmaCausalLMPreprocessor,
)
from gemma.tokenizers import Gemma3Tokenizer, GemmaTokenizer

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SEA = [299, 279, 324, 280, 287, 1985, 298]  # Define the noun "sea".
TEXT = 'Define the noun "sea".'


@pytest.fixture(scope="module")
def tokenizer():
    return GemmaTokenizer(GOLDEN / "tiny2k.spm")


def test_training_arrays_are_padded_and_shifted(tokenizer):
    x, y, weight = GemmaCausalLMPreprocessor(tokenizer, sequence_length=10)([TEXT])
    assert x["token_ids"].tolist() == [[2, *SEA, 1, 0]]
    assert x["padding_mask"].tolist() == [[True] * 9 + [False]]
    assert y.tolist() == [[*SEA, 1, 0, 0]]
    assert weight.tolist() == [[True] * 8 + [False] * 2]
    assert (x["token_ids"].dtype, x["padding_mask"].dtype) == (np.int32, bool)


def test_one_string_gives_vectors(tokenizer):
    x, y, weight = GemmaCausalLMPreprocessor(tokenizer, sequence_length=10)(TEXT)
    assert x["token_ids"].shape == y.shape == weight.shape == (10,)


def test_without_start_and_end_token(tokenizer):
    preprocessor = GemmaCausalLMPreprocessor(
        tokenizer, sequence_length=8, add_start_token=False, add_end_token=False
    )
    x, y, weight = preprocessor(TEXT)
    assert x["token_ids"].tolist() == [*SEA, 0]
    assert y.tolist() == [*SEA[1:], 0, 0]


def test_a_text_that_is_cut_does_not_learn_to_end(tokenizer):
    x, y, weight = GemmaCausalLMPreprocessor(tokenizer, sequence_length=4)(TEXT)
    assert x["token_ids"].tolist() == [2, *SEA[:3]]
    assert y.tolist() == SEA[:4]
    assert weight.all()


def test_prompts_begin_with_bos_and_do_not_end(tokenizer):
    preprocessor = GemmaCausalLMPreprocessor(tokenizer, sequence_length=10)
    x = preprocessor.generate_preprocess(TEXT)
    assert x["token_ids"].tolist() == [2, *SEA, 0, 0]
    assert x["padding_mask"].tolist() == [True] * 8 + [False] * 2
    assert preprocessor.generate_preprocess([TEXT], 5)["token_ids"].shape == (1, 5)


def test_what_was_preprocessed_comes_back_as_text(tokenizer):
    preprocessor = GemmaCausalLMPreprocessor(tokenizer, sequence_length=10)
    one, several = preprocessor.generate_preprocess(TEXT), [TEXT, "sea"]
    assert preprocessor.generate_postprocess(one) == TEXT
    many = preprocessor.generate_preprocess(several)
    assert preprocessor.generate_postprocess(many) == several


def test_the_length_may_be_set_later(tokenizer):
    preprocessor = GemmaCausalLMPreprocessor(tokenizer)
    assert preprocessor.sequence_length == 1024
    preprocessor.sequence_length = 6
    assert preprocessor(TEXT)[1].shape == (6,)
    assert preprocessor(TEXT, sequence_length=7)[1].shape == (7,)
    assert preprocessor.get_config() == {
        "sequence_length": 6,
        "add_start_token": True,
        "add_end_token": True,
    }


def test_a_preset_brings_tokenizer_and_length():
    loaded = GemmaCausalLMPreprocessor.from_preset(str(GOLDEN / "keras_hub/gemma2"))
    assert loaded.sequence_length == 24
    assert loaded(TEXT)[1].tolist()[:8] == [*SEA, 1]


def test_bytes_are_utf_8(tokenizer):
    preprocessor = GemmaCausalLMPreprocessor(tokenizer, sequence_length=10)
    assert preprocessor([TEXT.encode()])[1].tolist() == preprocessor([TEXT])[1].tolist()


def test_labels_of_ones_own_are_refused(tokenizer):
    with pytest.raises(ValueError, match="are made from x and must not be given"):
        GemmaCausalLMPreprocessor(tokenizer)(TEXT, y=[1])


@pytest.mark.parametrize("length", [0, -1, 2.5, True])
def test_a_length_that_is_no_length_is_refused(tokenizer, length):
    with pytest.raises(ValueError, match="sequence_length must be a positive integer"):
        GemmaCausalLMPreprocessor(tokenizer, sequence_length=length)


def test_what_is_no_string_is_refused(tokenizer):
    with pytest.raises(ValueError, match="a list of strings, received int"):
        GemmaCausalLMPreprocessor(tokenizer)([3])


WATER = [*GemmaTokenizer(GOLDEN / "tiny2k.spm")("water")]
PAIR = {"prompts": [TEXT], "responses": ["water"]}


@pytest.fixture(scope="module", params=[10, 12])
def gemma3(request):
    """Sequences in which prompt, response and end fit, or just not the end."""
    length = request.param - 11 + len(SEA) + len(WATER) + 1
    tokenizer = Gemma3Tokenizer(GOLDEN / "tiny2k.spm")
    return Gemma3CausalLMPreprocessor(tokenizer, sequence_length=length)


def test_only_responses_and_their_end_have_weight(gemma3):
    x, y, weight = gemma3(PAIR)
    labels = [*SEA, *WATER, 1, 0][: gemma3.sequence_length]
    assert y.tolist() == [labels]
    assert x["token_ids"].tolist() == [[2, *labels][:-1]]
    in_response = [0] * len(SEA) + [1] * (len(WATER) + 1) + [0]
    assert weight.astype(int).tolist() == [in_response[: gemma3.sequence_length]]


def test_one_prompt_and_its_response_give_vectors(gemma3):
    one = {name: texts[0] for name, texts in PAIR.items()}
    x, y, weight = gemma3(one)
    assert x["token_ids"].shape == y.shape == weight.shape == (gemma3.sequence_length,)
    assert y.tolist() == gemma3(PAIR)[1][0].tolist()


def test_prompts_of_a_dict_may_have_no_response_to_generate(gemma3):
    alone = gemma3.generate_preprocess({"prompts": [TEXT]}, 20)["token_ids"]
    assert alone.tolist() == [[2, *SEA, *[0] * (19 - len(SEA))]]
    both = gemma3.generate_preprocess(PAIR, 30)["token_ids"][0]
    assert both[both > 0].tolist() == [2, *SEA, *WATER]
    assert gemma3.prompt_ids(PAIR) == [[2, *SEA, *WATER]]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"prompts": ["a"]}, "must have responses to its prompts, received none"),
        ({"prompts": ["a"], "responses": []}, "received 1 prompts and 0 responses"),
        ({"texts": ["a"]}, "a dict with prompts and responses, received one with 't"),
        ({"prompts": ["a"], "images": 1}, "must hold no images"),
    ],
)
def test_dicts_that_are_no_pairs_are_refused(gemma3, x, message):
    with pytest.raises(ValueError, match=message):
        gemma3(x)


def test_an_image_converter_is_refused(tokenizer):
    with pytest.raises(ValueError, match="text models see no images, received object"):
        Gemma3CausalLMPreprocessor(tokenizer, image_converter=object())
