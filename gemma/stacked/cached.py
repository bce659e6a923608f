"""The stacked forward for generation: prompts at once, then one token a step.

Turns prompts into a cache of keys and values, and a token with a cache into the next
hidden state. Rows are padded on the left, so that all rows write at the same place.
A local layer keeps only as many places as its window has and writes them in rotation;
local and global layers stand in one scan step with caches of different lengths. It
refuses to know how a token is chosen (`gemma.decoding`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gemma.config import AttentionKind, GemmaConfig
from gemma.layers.attention import Cache, KeysAndValues
from gemma.stacked.forward import LayerWeights, Stacked, Weights, layers_of
from gemma.stacked.tree import Stack

Caches = tuple[KeysAndValues, ...]
"""Of the layers of a scan step, each [batch, places, kv_heads x head_dim]."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["kept", "starts", "column"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class DecodingState:
    """What decoding remembers between two tokens.

    A column is a place in the padded batch: prompts take the first columns, each
    generated token one more. Column c stands at place c % places of a layer.

    Attributes:
        kept: Of each stack, the caches of a scan step's layers with the steps as first
            dim; or a list of them, one for every step, where weights are apart.
        starts: int32 [batch], the column of each row's first token.
        column: int32 [], where the next token goes.
    """

    kept: dict[str, Caches | list[Caches]]
    starts: jax.Array
    column: jax.Array


def prefill(
    stacked: Stacked,
    weights: Weights,
    token_ids: jax.Array,
    starts: jax.Array,
    *,
    columns: int,
) -> tuple[jax.Array, DecodingState]:
    """Run whole prompts.

    Args:
        stacked: The model's functions.
        weights: An array for every path of its tree.
        token_ids: int32 [batch, seq], padded on the left.
        starts: int32 [batch], the column of each row's first token.
        columns: Length of prompts and continuations together, at most.

    Returns:
        Hidden states [batch, hidden] of the last tokens, and the state.

    Raises:
        ValueError: There are fewer columns than the prompts have.
    """
    length = token_ids.shape[1]
    if columns < length:
        raise ValueError(
            f"columns must be at least the prompts' {length}, received {columns}"
        )
    index = jnp.arange(length, dtype="int32")[None] - starts[:, None]
    inputs = {"positions": jnp.maximum(index, 0), "padding_mask": index >= 0}
    x, kept = stacked.start(weights, token_ids), {}
    for stack in stacked.stacks:
        fill = functools.partial(_fill, stacked, stack, inputs, columns=columns)
        layers = stacked.layered(weights, stack)
        if isinstance(layers, list):
            kept[stack.name] = []
            for step in layers:
                x, caches = fill(x, step)
                kept[stack.name].append(caches)
        else:
            x, kept[stack.name] = jax.lax.scan(fill, x, layers)
    state = DecodingState(kept, starts, jnp.asarray(length, "int32"))
    return stacked.finish(weights, x[:, -1:])[:, 0], state


def decode(
    stacked: Stacked, weights: Weights, token_ids: jax.Array, state: DecodingState
) -> tuple[jax.Array, DecodingState]:
    """Run one token a row, int32 [batch].

    Returns:
        Hidden states [batch, hidden] and the state with the token in it.
    """
    x, kept = stacked.start(weights, token_ids[:, None]), {}
    for stack in stacked.stacks:
        layers, caches = stacked.layered(weights, stack), state.kept[stack.name]
        extend = functools.partial(_extend, stacked=stacked, stack=stack, state=state)
        if isinstance(layers, list):
            kept[stack.name] = []
            for step, old in zip(layers, caches, strict=True):
                x, new = extend(x, step, old)
                kept[stack.name].append(new)
        else:
            x, kept[stack.name] = _scan_caches(extend, x, layers, caches, state)
    state = DecodingState(kept, state.starts, state.column + 1)
    return stacked.finish(weights, x)[:, 0], state


def places(config: GemmaConfig, kind: AttentionKind, columns: int) -> int:
    """Return how many tokens a layer of a kind must keep."""
    return min(config.sliding_window_size, columns) if kind == "local" else columns


def _last_places(tokens: jax.Array, size: int) -> jax.Array:
    """Return the last `size` columns of [batch, columns, heads, dim], each in place."""
    columns = tokens.shape[1]
    tokens = tokens.reshape(*tokens.shape[:2], -1)
    if columns <= size:
        return jnp.pad(tokens, [(0, 0), (0, size - columns), (0, 0)])
    return jnp.roll(tokens[:, columns - size :], columns % size, axis=1)


def _fill(
    stacked: Stacked,
    stack: Stack,
    inputs: dict[str, jax.Array],
    x: jax.Array,
    layers: LayerWeights,
    *,
    columns: int,
) -> tuple[jax.Array, Caches]:
    """Run the layers of one scan step on whole prompts; return their caches."""
    found = []
    for k, kind in enumerate(stack.kinds):
        x, tokens = stacked.run_block(stack, k, layers_of(layers, k), x, **inputs)
        size = places(stacked.config, kind, columns)
        found.append(tuple(_last_places(part, size) for part in tokens))
    return x, tuple(found)


def _extend(
    x: jax.Array,
    layers: LayerWeights,
    caches: Caches,
    *,
    stacked: Stacked,
    stack: Stack,
    state: DecodingState,
) -> tuple[jax.Array, Caches]:
    """Run the layers of one scan step on a token; return their caches with it."""
    positions = (state.column - state.starts)[:, None]
    found = []
    for k, (keys, values) in enumerate(caches):
        size = keys.shape[1]
        cache = Cache(keys, values, state.column % size, _visible(state, size))
        x, kept = stacked.run_block(
            stack, k, layers_of(layers, k), x, positions=positions, cache=cache
        )
        found.append(kept)
    return x, tuple(found)


def _scan_caches(
    extend: Callable[[jax.Array, LayerWeights, Caches], tuple[jax.Array, Caches]],
    x: jax.Array,
    layers: LayerWeights,
    caches: Caches,
    state: DecodingState,
) -> tuple[jax.Array, Caches]:
    """Run all scan steps; caches are carried along, so that they change in place."""
    steps = jax.tree.leaves(caches)[0].shape[0]

    def run(
        carry: tuple[jax.Array, Caches], xs: tuple[jax.Array, LayerWeights]
    ) -> tuple[tuple[jax.Array, Caches], None]:
        (x, caches), (step, layers) = carry, xs
        here = jax.tree.map(
            lambda kept: jax.lax.dynamic_index_in_dim(kept, step, keepdims=False),
            caches,
        )
        x, new = extend(x, layers, here)
        return (x, _with_newest(caches, new, state, step)), None

    return jax.lax.scan(run, (x, caches), (jnp.arange(steps), layers))[0]


def _with_newest(
    caches: Caches, new: Caches, state: DecodingState, step: jax.Array
) -> Caches:
    """Put the newest token of one scan step's caches into the caches of all steps."""

    def put(kept: jax.Array, one: jax.Array) -> jax.Array:
        place = state.column % one.shape[1]
        token = jax.lax.dynamic_slice_in_dim(one, place, 1, axis=1)[None]
        return jax.lax.dynamic_update_slice(kept, token, (step, 0, place, 0))

    return jax.tree.map(put, caches, new)


def _visible(state: DecodingState, size: int) -> jax.Array:
    """Return which places the token in `state.column` sees: bool [batch, 1, size].

    A layer has no more places than its window, so that age needs no look.
    """
    index = jnp.arange(size, dtype="int32")
    columns = state.column - (state.column - index) % size
    return (columns >= state.starts[:, None])[:, None]
