"""What every subject continues: prompts of random ids, on the shape of Gemma 3 270M.

Turns nothing but its defaults into dimensions and prompts, equal for all subjects. It
imports no subject, so that each one pays for its own imports.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationWorkload:
    """Greedy continuation of a batch of prompts of one length, without a stop."""

    vocabulary_size: int = 262_144
    num_layers: int = 18
    hidden_dim: int = 640
    ffw_dim: int = 2048
    num_query_heads: int = 4
    num_key_value_heads: int = 1
    head_dim: int = 256
    sliding_window_size: int = 512
    batch_size: int = 8
    prompt_length: int = 128
    new_tokens: int = 128
    dtype: str = "float32"

    @property
    def tokens_per_step(self) -> int:
        """New tokens of one call."""
        return self.batch_size * self.new_tokens

    @property
    def weight_count(self) -> int:
        """Floats of the table and the kernels, all of which a decoding step reads."""
        heads = 2 * self.num_query_heads + 2 * self.num_key_value_heads
        layer = self.hidden_dim * (heads * self.head_dim + 3 * self.ffw_dim)
        return self.num_layers * layer + self.hidden_dim * self.vocabulary_size

    def batches(self) -> Iterator[tuple[Any, int]]:
        """Yield prompts int32 [batch, prompt] and how many tokens to add to each."""
        import numpy as np

        random = np.random.default_rng(0)
        shape = (self.batch_size, self.prompt_length)
        while True:
            prompts = random.integers(4, self.vocabulary_size, shape, "int32")
            yield prompts, self.new_tokens
