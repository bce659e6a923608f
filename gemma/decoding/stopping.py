"""Where a continuation ends: stop tokens, and stop sequences of several tokens.

Turns sequences of ids into a test that runs in the compiled loop, and cuts finished
rows before the first of them. It refuses to know text.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

StopSequences = tuple[tuple[int, ...], ...]

END = -1  # what stands in a row after its end; no token has this id


def stop_table(
    token_ids: Sequence[int], sequences: Sequence[Sequence[int]]
) -> StopSequences:
    """Return stop tokens and stop sequences as one table without repetitions.

    Raises:
        ValueError: A sequence is empty.
    """
    found = [(int(token),) for token in token_ids]
    found += [tuple(int(token) for token in sequence) for sequence in sequences]
    if not all(found):
        raise ValueError("stop_sequences must have an id or more each, received []")
    return tuple(dict.fromkeys(found))


def ends_here(tokens: jax.Array, step: jax.Array, stops: StopSequences) -> jax.Array:
    """Return which rows end with a stop sequence: bool [batch].

    Args:
        tokens: int32 [batch, capacity], generated ids.
        step: int32 [], index of the newest one.
        stops: From `stop_table`.
    """
    found = jnp.zeros(tokens.shape[0], bool)
    for sequence in stops:
        length = len(sequence)
        if length > tokens.shape[1]:
            continue
        first = step - length + 1
        tail = jax.lax.dynamic_slice_in_dim(tokens, first, length, axis=1)
        is_equal = (tail == jnp.asarray(sequence, "int32")).all(-1)
        found |= is_equal & (first >= 0)  # before that, the slice is another one
    return found


def until_stop(row: Sequence[int], stops: StopSequences) -> list[int]:
    """Return a row up to the stop sequence that ends first, or to its end."""
    for place, token in enumerate(row):
        if token == END:
            return list(row[:place])
        lengths = [
            len(sequence)
            for sequence in stops
            if tuple(row[max(0, place + 1 - len(sequence)) : place + 1]) == sequence
        ]
        if lengths:
            return list(row[: place + 1 - max(lengths)])
    return list(row)
