"""What every subject of the comparison trains: one Gemma 2 shape and its batches.

Turns a vocabulary size into dimensions and into batches of random ids, equal for all
subjects. It imports no subject, so that each one pays for its own imports.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

Batch = tuple[Any, Any]  # inputs and labels, each int32 [batch, sequence]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """LoRA on query and value of a small Gemma 2, loss on every position.

    `ffw_dim` is the width of one feed-forward branch; a sequence holds rows of
    `row_tokens`, or is one row.
    """

    vocabulary_size: int
    num_layers: int = 4
    hidden_dim: int = 512
    ffw_dim: int = 1024
    num_query_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 64
    attention_logit_soft_cap: float = 50.0
    final_logit_soft_cap: float = 30.0
    sliding_window_size: int = 4096
    sequence_length: int = 256
    batch_size: int = 4
    lora_rank: int = 8
    learning_rate: float = 1e-3
    dtype: str = "float32"
    row_tokens: int | None = None

    @property
    def row_lengths(self) -> list[int]:
        """Tokens of every row of a sequence."""
        row = self.row_tokens or self.sequence_length
        whole, rest = divmod(self.sequence_length, row)
        return [row] * whole + [rest] * bool(rest)

    @property
    def tokens_per_step(self) -> int:
        """Tokens that go into the model in a step."""
        return self.batch_size * self.sequence_length

    @property
    def gigaflops_per_step(self) -> float:
        """What must be computed, in 10^9 operations.

        Products with weights once forward and once back to the activations; no
        gradient of a frozen weight; attention and adapters are small and left out.
        """
        heads = 2 * self.num_query_heads + 2 * self.num_key_value_heads
        layer = self.hidden_dim * (heads * self.head_dim + 3 * self.ffw_dim)
        weights = self.num_layers * layer + self.hidden_dim * self.vocabulary_size
        return 4 * self.tokens_per_step * weights / 1e9

    def positions(self) -> Any:
        """Return each token's place in its row, int32 [batch, sequence]."""
        import numpy as np

        places = np.concatenate([np.arange(n, dtype="int32") for n in self.row_lengths])
        return np.broadcast_to(places, (self.batch_size, self.sequence_length))

    def batches(self) -> Iterator[Batch]:
        """Yield inputs and the next tokens, without end, the same for everyone."""
        import numpy as np

        random = np.random.default_rng(0)
        shape = (self.batch_size, self.sequence_length + 1)
        while True:
            ids = random.integers(4, self.vocabulary_size, shape, "int32")
            yield ids[:, :-1], ids[:, 1:]
