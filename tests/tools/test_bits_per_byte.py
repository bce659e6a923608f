"""Bits a byte: what is paid for, how often, and how much."""

import json
import math
import pathlib
import sys

import numpy as np
import pytest

from gemma import GemmaBackbone, GemmaTokenizer

TOOLS = pathlib.Path(__file__).parent
sys.path.insert(0, str(TOOLS))

from bits_per_byte import (  # noqa: E402
    SHAKESPEARE,
    WORDNET,
    Sample,
    response_samples,
    total_bits,
    window_samples,
    xz_bits_per_byte,
)

VOCABULARY = (
    TOOLS.parents[1] / "gemma/presets/gemma2_tiny_en/assets/tokenizer/vocabulary.spm"
)


@pytest.fixture(scope="module")
def tokenizer() -> GemmaTokenizer:
    return GemmaTokenizer(VOCABULARY.read_bytes())


@pytest.fixture(scope="module")
def backbone() -> GemmaBackbone:
    return GemmaBackbone(
        vocabulary_size=64,
        num_layers=2,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=16,
        intermediate_dim=32,
        head_dim=8,
        dtype="float32",
    )


def test_xz_needs_what_the_data_sets_state():
    rows = map(json.loads, WORDNET.read_text().splitlines())
    responses = "\n".join(row["response"] for row in rows)
    assert round(xz_bits_per_byte(responses.encode()), 2) == 3.49
    assert round(xz_bits_per_byte(SHAKESPEARE.read_bytes()), 2) == 2.75


def test_windows_pay_for_every_token_once_after_half_a_window():
    ids = list(range(100, 123))
    samples = list(window_samples(ids, start_token_id=2, sequence_length=8))
    paid = [token for sample in samples for token in sample.ids[-sample.paid :]]
    assert paid == ids
    assert samples[:2] == [
        Sample([2, *range(100, 108)], 8),
        Sample([2, *range(104, 112)], 4),
    ]
    assert all(len(sample.ids) <= 9 for sample in samples)


def test_a_row_pays_for_its_response_alone(tokenizer):
    row = {"prompt": 'Define the noun "yak".', "response": "A large ox."}
    (sample,) = response_samples([row], tokenizer)
    whole = "yak (noun)\nA large ox."
    assert sample.ids == [2, *tokenizer(whole)]
    assert tokenizer.detokenize(sample.ids[-sample.paid :]) == row["response"]


def test_a_model_that_knows_nothing_pays_the_logarithm_of_its_vocabulary(backbone):
    embedding = backbone.get_layer("token_embedding").embeddings
    before = np.asarray(embedding.value)
    embedding.assign(np.zeros_like(before))
    samples = [Sample([2, 7, 9, 11], 2), Sample([2, 5], 1)] * 20
    assert total_bits(backbone, samples) == pytest.approx(60 * math.log2(64))
    embedding.assign(before)


def test_padding_and_company_in_a_batch_change_nothing(backbone):
    samples = [Sample([2, 7, 9, 11, *range(3, 40)], 2), Sample([2, 5, 9], 1)]
    alone = [total_bits(backbone, [sample]) for sample in samples]
    assert total_bits(backbone, samples) == pytest.approx(sum(alone), rel=1e-5)
