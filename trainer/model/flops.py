"""How many floating-point operations a training step must do, from dimensions alone.

Turns a model's dimensions, its adapters and what a batch holds into the operations of
the matrix products that no implementation can leave out: the numerator of MFU and the
plan's `flops_per_step`. It refuses to know how a step is computed: what is computed
twice (remat), for padding, or for positions without loss counts nothing here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from gemma.adapters.factors import FACTOR_B, factor_shapes, is_shared
from gemma.config import HEADS_FIRST, GemmaConfig
from gemma.lora import LoraSettings

FORWARD = 2  # a multiplication and an addition for each weight and token
TO_ACTIVATIONS = 2  # the gradient that goes on to the layer below
TO_WEIGHTS = 2  # the gradient of the weight itself
ATTENTION_PRODUCTS = 2 + 4  # scores and mix; backward each has two


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepFlops:
    """The count for one model.

    Norms, rotary positions, softmax, activations and the optimizer are left out: they
    are no matrix products and below a hundredth of these. The lowest layer counts as
    all others, although nothing below it may need a gradient.

    Attributes:
        config: Dimensions.
        lora: Adapters to train; None trains all weights, the embedding too.
        trains_embedding: The embedding is trained beside adapters.
    """

    config: GemmaConfig
    lora: LoraSettings | None
    trains_embedding: bool = False

    def of(self, *, lengths: Sequence[int], loss_tokens: int) -> int:
        """Return the operations of a step, all devices together.

        Args:
            lengths: Positions of every row, or piece of one, in the global batch. A
                token attends to what the causal order and its layer's window leave of
                its own row, packed or not; padding is in none.
            loss_tokens: Positions whose label is learned; only these need logits.
        """
        pairs = self._attended_pairs(lengths)
        heads, head_dim = self.config.num_query_heads, self.config.head_dim
        attention = ATTENTION_PRODUCTS * FORWARD * heads * head_dim * pairs
        weights = sum(lengths) * (self._block_weights() + self._adapters())
        return weights + attention + loss_tokens * self._logits()

    def _attended_pairs(self, lengths: Sequence[int]) -> int:
        """Return the pairs of query and key in rows, summed over the layers."""
        layers = range(self.config.num_layers)
        local = sum(self.config.attention_kind(layer) == "local" for layer in layers)
        whole = np.asarray(lengths, np.int64)
        seen = np.minimum(whole, self.config.sliding_window_size)
        windowed = seen * (seen + 1) // 2 + (whole - seen) * seen
        pairs = local * windowed + (len(layers) - local) * (whole * (whole + 1) // 2)
        return int(pairs.sum())

    def _block_weights(self) -> int:
        """Return the operations of all layers' kernels for a token."""
        shapes = self.config.block_shapes().items()
        kernels = sum(math.prod(s) for path, s in shapes if path.endswith("/kernel"))
        return self.config.num_layers * kernels * self._each_weight()

    def _each_weight(self, *, is_trained: bool = False) -> int:
        is_trained = is_trained or self.lora is None
        return FORWARD + TO_ACTIVATIONS + (TO_WEIGHTS if is_trained else 0)

    def _logits(self) -> int:
        table = self.config.vocabulary_size * self.config.hidden_dim
        return table * self._each_weight(is_trained=self.trains_embedding)

    def _adapters(self) -> int:
        """Return the operations of all factors for a token.

        Of Keras's factors of query, key and value each head uses the same B.
        """
        if self.lora is None:
            return 0
        shapes = factor_shapes(
            self.config,
            rank=self.lora.rank,
            targets=self.lora.targets,
            factorisation=self.lora.factorisation,
        )
        used = 0
        for path, shape in shapes.items():
            layer, _, factor = path.rpartition("/")
            name = layer.rsplit("/", 1)[-1]
            is_per_head = name in HEADS_FIRST and factor == FACTOR_B
            if is_per_head and not is_shared(layer, self.lora.factorisation):
                used += math.prod(shape) * self._heads(name)
            else:
                used += math.prod(shape)
        return used * (FORWARD + TO_ACTIVATIONS + TO_WEIGHTS)

    def _heads(self, name: str) -> int:
        is_query = name == "query"
        return (
            self.config.num_query_heads if is_query else self.config.num_key_value_heads
        )
