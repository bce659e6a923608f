"""What a decoder block says of its output before it runs."""

import keras
import pytest

from gemma.config import Gemma3Config, GemmaConfig
from gemma.layers.decoder_block import Gemma3DecoderBlock, GemmaDecoderBlock

DIMENSIONS = {
    "vocabulary_size": 96,
    "num_layers": 1,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 24,
    "intermediate_dim": 96,
    "head_dim": 8,
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    ("block_class", "config_class"),
    [(GemmaDecoderBlock, GemmaConfig), (Gemma3DecoderBlock, Gemma3Config)],
)
def test_the_stated_output_is_what_tracing_finds(block_class, config_class, dtype):
    block = block_class(config_class(**DIMENSIONS), dtype=dtype)
    policy = keras.dtype_policies.get(dtype)
    x = keras.KerasTensor((2, 7, 24), dtype=policy.compute_dtype)
    mask = keras.KerasTensor((2, 7), dtype="int32")
    stated = block(x, padding_mask=mask)
    traced = keras.src.backend.compute_output_spec(block.call, x, mask)
    assert stated.shape == traced.shape == (2, 7, 24)
    assert stated.dtype == traced.dtype
