"""An estimate of what a step needs beside its state: activations and the loss.

Turns dimensions, a layout and the settings of a step into bytes on each device. The
terms are the arrays that the program makes; their factors are fitted to what compilers
say of a list of programs, which `tests/benchmarks/plan_cases.py` compiles again.
"""

from __future__ import annotations

import dataclasses
import math

from gemma.attention.blocked import LARGEST_BLOCK
from gemma.config import GemmaConfig
from gemma.layout import LayoutTable

FLOAT32 = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What decides the bytes of a forward and a backward pass on one device.

    Attributes:
        config: Dimensions of the model.
        layout: Where its variables lie.
        item_bytes: Of the dtype of computation.
        is_full: All weights are trained.
        is_quantized: The base is kept in 8 or 4 bits.
        sequence_length: Tokens of a sequence.
        microbatch_size: Sequences per forward, on all devices.
        remat: `trainer.remat`.
        attention: Path that computes attention.
        loss_chunk_tokens: `trainer.loss_chunk_tokens`.
    """

    config: GemmaConfig
    layout: LayoutTable
    item_bytes: int
    is_full: bool
    is_quantized: bool
    sequence_length: int
    microbatch_size: int
    remat: str
    attention: str
    loss_chunk_tokens: int

    @property
    def sequences(self) -> int:
        """Sequences of a forward on this device."""
        return -(-self.microbatch_size // self.layout.mesh_shape[0])

    @property
    def tokens(self) -> int:
        """Tokens of a forward on this device."""
        return self.sequences * self.sequence_length

    @property
    def hidden(self) -> int:
        """Bytes of the hidden states between two layers."""
        return self.tokens * self.config.hidden_dim * self.item_bytes

    @property
    def heads(self) -> int:
        """Bytes of the queries, keys and values of a layer."""
        config = self.config
        heads = self._each(config.num_query_heads)
        kv_heads = self._each(config.num_key_value_heads)
        wide = (heads + 2 * kv_heads) * config.head_dim
        return self.tokens * wide * self.item_bytes

    @property
    def feed_forward(self) -> int:
        """Bytes of one branch of a layer's feed-forward."""
        return self.tokens * self._each(self.config.ffw_dim) * self.item_bytes

    @property
    def layer_weights(self) -> int:
        """Bytes of a layer's weights when those split over `batch` are gathered."""
        batch, model = self.layout.mesh_shape
        count = sum(map(math.prod, self.config.block_shapes().values()))
        return count * self.item_bytes // model

    def _each(self, dim: int) -> int:
        """Return a dim's part on this device; what does not divide stays whole."""
        model = self.layout.mesh_shape[1]
        return dim // model if dim % model == 0 else dim


def activation_bytes(work: Work) -> int:
    """Return what the backward pass keeps, and the most that it works on at a time."""
    config = work.config
    period = len(config.attention_pattern)
    block = 4 * work.hidden + 2 * work.heads + 4 * work.feed_forward + _scores(work)
    gathered = period * work.layer_weights if work.layout.mesh_shape[0] > 1 else 0
    return _kept(work, block) + period * block + 2 * gathered + 2 * work.hidden


def loss_bytes(work: Work) -> int:
    """Return the bytes of the loss: hidden states, their gradient, and a chunk."""
    batch, model = work.layout.mesh_shape
    chunk = min(work.loss_chunk_tokens // batch, work.tokens)
    entries = work.config.vocabulary_size // model
    tile = entries if work.is_full else min(entries, 2048)
    rows = 2 * work.tokens * work.config.hidden_dim * work.item_bytes
    return rows + chunk * (2 * tile + 2 * work.config.hidden_dim) * FLOAT32


def _kept(work: Work, block: int) -> int:
    """Return what is kept of each layer until its backward pass."""
    config = work.config
    steps = math.ceil(config.num_layers / len(config.attention_pattern))
    if work.remat == "none":
        return config.num_layers * block
    return steps * work.hidden


def _scores(work: Work) -> int:
    """Return the bytes of a layer's scores: all, a block, or none outside a kernel."""
    length = work.sequence_length
    if work.attention in ("splash", "cudnn"):
        return 0
    if work.attention == "blocked":
        length = min(length, LARGEST_BLOCK)
    heads = work._each(work.config.num_query_heads)
    return work.sequences * heads * length**2 * FLOAT32
