"""How many positions the loss takes at a time, and where they and the table lie.

Turns sizes that are chosen, and those of a batch, into chunks and pieces of positions.
It refuses to know arrays: everything here is known when the loss is compiled.
"""

from __future__ import annotations

import dataclasses

from jax.sharding import NamedSharding

CPU_PIECES = (512, 64)
"""Positions whose logits a CPU computes at a time: products of 512 are the fastest, and
of 64 only half are computed for nothing on average."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossForm:
    """What is known of a loss when it is compiled.

    Attributes:
        soft_cap: Bound of the logits; None leaves them.
        shards: Parts in which the batch dim lies on devices; chunks are formed in each.
        chunk_tokens: Positions of a part for which a frozen table is read once.
        table_shards: Parts in which the vocabulary lies on devices.
        piece_tokens: Positions of a part whose logits exist at a time, for one tile of
            the vocabulary, largest first; none: a whole chunk's.
        tile_gradient: How the gradient of a trained table's tile [entries, dim] lies,
            the sum over all positions; None leaves it to the compiler.
    """

    soft_cap: float | None
    shards: int
    chunk_tokens: int
    table_shards: int
    piece_tokens: tuple[int, ...] = ()
    tile_gradient: NamedSharding | None = None

    def piece_sizes(self, tokens: int) -> tuple[int, ...]:
        """Return the sizes of pieces where a shard has so many positions."""
        largest = min(self.chunk_tokens, tokens)
        return tuple(n for n in self.piece_tokens if n < largest) or (largest,)

    def chunk_size(self, tokens: int) -> int:
        """Return the positions of a chunk, whole pieces of the smallest size."""
        piece = self.piece_sizes(tokens)[-1]
        return -(-min(self.chunk_tokens, tokens) // piece) * piece
