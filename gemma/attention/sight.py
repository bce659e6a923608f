"""What each query of a sequence may see, before any matrix of it exists.

Turns window, segments and padding into a `Sight`, whose size is that of the tokens, and
a `Sight` with two ranges of places into the mask between them. It knows neither scores
nor devices, so that every path of attention asks the same object.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

NO_SEGMENT = int(jnp.iinfo("int32").min)
"""Segment of a key that no query sees, since it is padding; no row has this id."""

Place = int | jax.Array
"""Index of a token in its sequence, a number or int32 []."""


class Sight(NamedTuple):
    """A query sees itself and the places before it, within window and segment.

    Attributes:
        window: A query sees itself and the window - 1 places before; None sees all.
        segments: int32 [batch, seq] of the queries; None where all are of one segment
            and nothing is padding. A query sees keys of its own segment.
        key_segments: int32 [batch, seq] of the keys where some are padding; None: those
            of the queries, so that every query sees itself.
    """

    window: int | None = None
    segments: jax.Array | None = None
    key_segments: jax.Array | None = None

    def of_keys(self) -> jax.Array | None:
        """Return the segments of the keys."""
        return self.segments if self.key_segments is None else self.key_segments

    def mask(self, query: Place, key: Place, *, queries: int, keys: int) -> jax.Array:
        """Return which keys are seen in two ranges: bool [batch or 1, queries, keys].

        Args:
            query: Where the range of queries begins.
            key: Where the range of keys begins.
            queries: Places in the range of queries.
            keys: Places in the range of keys.
        """
        distance = (query + jnp.arange(queries))[:, None] - (key + jnp.arange(keys))
        visible = distance >= 0
        if self.window is not None:
            visible &= distance < self.window
        if self.segments is None:
            return visible[None]
        of_queries = jax.lax.dynamic_slice_in_dim(self.segments, query, queries, 1)
        of_keys = jax.lax.dynamic_slice_in_dim(self.of_keys(), key, keys, 1)
        return visible & (of_queries[:, :, None] == of_keys[:, None, :])


def see(
    window: int | None = None,
    segment_ids: jax.Array | None = None,
    padding_mask: jax.Array | None = None,
) -> Sight:
    """Return the sight of a layer.

    Args:
        window: Of a local layer; None for a global one.
        segment_ids: int32 [batch, seq], rows of a packed sequence.
        padding_mask: [batch, seq], false where a key is padding.
    """
    if padding_mask is None:
        return Sight(window, segment_ids)
    if segment_ids is None:
        segment_ids = jnp.zeros(padding_mask.shape, "int32")
    of_keys = jnp.where(jnp.asarray(padding_mask, bool), segment_ids, NO_SEGMENT)
    return Sight(window, segment_ids, of_keys)
