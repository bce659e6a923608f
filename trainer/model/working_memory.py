"""An estimate of what a step needs beside its state: activations and the loss.

Turns dimensions, a layout and the settings of a step into bytes on each device. The
terms are the arrays that the program makes; their factors are fitted to what compilers
say of a list of programs, which `tests/benchmarks/plan_cases.py` compiles again.
"""

from __future__ import annotations

import dataclasses
import math

from gemma.config import GemmaConfig
from gemma.layout import LayoutTable
from gemma.layout.listing import ITEM_BYTES
from gemma.stacked.remat import BY_STRETCH
from gemma.stacked.tree import stacks

FLOAT32 = 4
LANES = 128  # numbers of a row that a TPU stores together
FEW_ROWS = 65_536  # of a table on a device: standing twice it is small beside the rest
LARGEST_TILE = 2048  # of the vocabulary: trainer.model.vocabulary_tiles
GATHERED_FOR_WEIGHTS = 6
FURTHER = 1.25
MOST_GATHERED = 3
FRAGMENTS = 1.45
"""What a compiler's heap takes for each byte that is live at its fullest."""
LOST_BESIDE_GRADIENTS = 0.35
"""What is lost between the gradients, for each byte of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What decides the bytes of a forward and a backward pass on one device.

    Attributes:
        config: Dimensions of the model.
        layout: Where its variables lie.
        item_bytes: Of the dtype of computation.
        is_full: All weights are trained.
        trains_table: The embedding is trained.
        is_quantized: The base is kept in 8 or 4 bits.
        sequence_length: Tokens of a sequence.
        microbatch_size: Sequences per forward, on all devices.
        remat: `trainer.remat`.
        attention: Path that computes attention.
        attention_block: Places of a block at most, where the path is `blocked`.
        loss_chunk_tokens: `trainer.loss_chunk_tokens`.
        slices: Of TPUs, over which `batch` runs.
        scans_stretches: Those of alike layers are scans where remat allows it.
    """

    config: GemmaConfig
    layout: LayoutTable
    item_bytes: int
    is_full: bool
    trains_table: bool
    is_quantized: bool
    sequence_length: int
    microbatch_size: int
    remat: str
    attention: str
    attention_block: int
    loss_chunk_tokens: int
    slices: int
    scans_stretches: bool

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
    def has_stretches(self) -> bool:
        """Whether layers of a scan step are scans of their own."""
        found = stacks(self.config)
        is_scanned = self.scans_stretches and self.remat == BY_STRETCH
        return is_scanned and any(len(s.stretches) < len(s.kinds) for s in found)

    @property
    def layers_together(self) -> int:
        """Layers of a scan step that are computed again together; one of a stretch."""
        found = stacks(self.config)
        return max(len(s.stretches if self.has_stretches else s.kinds) for s in found)

    @property
    def kept_inputs(self) -> int:
        """Layers whose input is kept: the first of each scan step, or all."""
        if self.has_stretches:
            return self.config.num_layers
        return sum(len(s.layers) // len(s.kinds) for s in stacks(self.config))

    @property
    def stretch_weights(self) -> int:
        """Bytes of the weights of a stretch, which are copied for its scan."""
        if not self.has_stretches:
            return 0
        rows = [r for r in self.layout.rows if r.path.startswith("decoder_block")]
        found = stacks(self.config)
        longest = max(len(places) for s in found for places in s.stretches)
        layers = sum(row.bytes_per_device for row in rows)
        return layers * longest // self.config.num_layers

    @property
    def between(self) -> int:
        """Bytes of the hidden states between products, split over `model` too."""
        model = self.layout.mesh_shape[1]
        return self.hidden // (model if self.sequence_length % model == 0 else 1)

    @property
    def layer_weights(self) -> int:
        """Bytes of a layer's weights when those split over `batch` are gathered."""
        count = sum(map(math.prod, self.config.block_shapes().values()))
        return count * self.item_bytes // self.layout.mesh_shape[1]

    def _each(self, dim: int) -> int:
        """Return a dim's part on this device; what does not divide stays whole."""
        model = self.layout.mesh_shape[1]
        return dim // model if dim % model == 0 else dim


def activation_bytes(work: Work) -> int:
    """Return what is kept for the backward pass, and the most it takes beside that.

    The backward pass of the layers and the loss take turns: of the former only what it
    takes beyond the latter counts. The table that the loss gathers counts here.
    """
    loss = loss_bytes(work)
    return _kept(work) + max(_backward(work) - loss, _gathered_table(work))


def loss_bytes(work: Work) -> int:
    """Return the bytes of the loss: hidden states, those with loss, and a chunk.

    Their gradient is as wide. A chunk meets a tile of the table at a time. A trained
    table has two passes over tiles, in which each tile's own gradient is added up in
    float32.
    """
    _, model = work.layout.mesh_shape
    config = work.config
    tokens = min(work.loss_chunk_tokens, work.tokens)
    tile = min(config.vocabulary_size // model, LARGEST_TILE)
    chunk = tokens * (2 * tile + 2 * config.hidden_dim) * FLOAT32
    if work.trains_table:
        chunk += tile * config.hidden_dim * FLOAT32
    return 3 * work.hidden + chunk


def _gathered_table(work: Work) -> int:
    """Return the bytes of the embedding where its other dim is split over `batch`.

    A TPU stores rows of 128 numbers: parts of other sizes are gathered transposed, and
    the whole is copied; of a large table its own part is, twice.
    """
    batch, model = work.layout.mesh_shape
    config = work.config
    if batch == 1:
        return 0
    entries = work._each(config.vocabulary_size)
    whole = entries * config.hidden_dim * work.item_bytes
    if config.hidden_dim // batch % LANES == 0:
        return whole
    return 2 * whole if entries <= FEW_ROWS else whole + 2 * whole // batch


def _kept(work: Work) -> int:
    """Return what is kept of the layers from the forward pass on."""
    layers, steps = work.config.num_layers, work.kept_inputs
    products = work.heads + 2 * work.feed_forward + 2 * work.between
    between = work.feed_forward + work.heads + work.hidden + 4 * work.between
    kept = {
        "none": layers * (products + between),
        "attention": layers * products + steps * work.between,
        "dots_saveable": layers * (products + _scores(work)) + steps * work.between,
        "dots_with_no_batch_dims_saveable": layers * products + steps * work.between,
        "offload": 2 * work.between,
    }
    return kept.get(work.remat, steps * work.between)


def _backward(work: Work) -> int:
    """Return the most that the backward pass of a scan step works on at a time.

    Of each layer that is computed again: gate, linear branch and their product, of
    those beyond the second less than half of that; the normalised input of attention,
    queries, keys, values and the mix. Of the layer that is at work: the gradients of
    both branches. Beside it the weights of each layer that is gathered, twice where
    they come from other slices, the weights of a stretch, the kernels that the compiler
    lays out anew for the whole stack, and an array as wide as the hidden states for
    each product beside query and value that has an adapter.
    """
    again = 0 if work.remat == "none" else work.layers_together
    branches = 3 * min(again, 2) + FURTHER * max(again - 2, 0) + 2
    live = round(branches * work.feed_forward) + max(again, 1) * work.hidden
    live += 2 * max(again, 1) * work.heads + max(again, 1) * _scores(work)
    live += _more_adapters(work) * work.hidden
    gathered = (
        min(work.layers_together, MOST_GATHERED) if work.layout.mesh_shape[0] > 1 else 1
    )
    gathered *= 2 if work.slices > 1 else 1
    live += gathered * work.layer_weights + _laid_out_anew(work) + work.stretch_weights
    return round(FRAGMENTS * live) + _training_weights(work)


def _more_adapters(work: Work) -> int:
    """Return how many products of a layer have adapters, query and value apart."""
    paths = (row.path for row in work.layout.rows)
    adapted = {p.split("/")[-2] for p in paths if p.endswith("/lora_kernel_a")}
    return len(adapted - {"query", "value"})


def _training_weights(work: Work) -> int:
    """Return what training all weights, or the table, takes beside their gradients.

    The fragments of all gradients, and where all weights are trained: the layers' in
    the dtype of computation, for the whole stack, hidden states that are gathered for
    the gradients of a layer's weights, and of a long scan step these gradients before
    they are scattered.
    """
    if not work.trains_table:
        return 0
    rows = work.layout.rows
    table = next(row for row in rows if row.path.startswith("token_embedding"))
    if not work.is_full:
        return round((FRAGMENTS - 1) * table.bytes_per_device)
    trained = sum(row.bytes_per_device for row in rows)
    cast = (trained - table.bytes_per_device) * work.item_bytes // FLOAT32
    cast = cast if work.item_bytes < FLOAT32 else 0
    whole = (
        max(work.layers_together - 2, 0)
        * work.layer_weights
        * FLOAT32
        // work.item_bytes
    )
    gathered = FRAGMENTS * (GATHERED_FOR_WEIGHTS * work.hidden + whole)
    return round(cast + gathered + LOST_BESIDE_GRADIENTS * trained)


def _laid_out_anew(work: Work) -> int:
    """Return the bytes of the kernels of queries and keys, which a TPU transposes."""
    if work.is_quantized:
        return 0
    names = ("attention/query/kernel", "attention/key/kernel")
    return sum(
        row.bytes // row.devices * work.item_bytes // ITEM_BYTES[row.dtype]
        for row in work.layout.rows
        if row.path.endswith(names)
    )


def _scores(work: Work) -> int:
    """Return the bytes of a layer's scores: all, a block, or none outside a kernel."""
    length = work.sequence_length
    if work.attention in ("splash", "cudnn"):
        return 0
    if work.attention == "blocked":
        length = min(length, work.attention_block)
    heads = work._each(work.config.num_query_heads)
    return work.sequences * heads * length**2 * FLOAT32
