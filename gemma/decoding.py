"""Continues prompts token by token, on stacked weights, as one compiled program.

Turns right-padded prompts of unequal length into the tokens that follow. Every row
writes at its own place, so that no row waits for a longer prompt.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gemma.layers.token_embedding import unembed
from gemma.stacked import Stacked
from gemma.stacked.forward import Weights

SMALLEST_BUCKET = 32


class Decoder:
    """Generates with one set of functions; compiles once a bucket of lengths.

    Args:
        stacked: The model's functions.
        stop_token_ids: Ids that end a row; they are not part of its result.
        batch_multiple: Rows are padded to a multiple, so that a mesh divides them.
    """

    def __init__(
        self,
        stacked: Stacked,
        stop_token_ids: Sequence[int],
        *,
        batch_multiple: int = 1,
    ) -> None:
        self._stops = tuple(stop_token_ids)
        self._multiple = batch_multiple
        self._run = jax.jit(
            functools.partial(_generate, stacked, self._stops),
            static_argnames=("max_new_tokens", "temperature"),
        )

    def generate(
        self,
        weights: Weights,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[list[int]]:
        """Return the ids that follow each prompt, up to a stop token.

        Args:
            weights: An array for every path of the state tree.
            prompts: Ids with BOS, none empty.
            max_new_tokens: Ids to add at most.
            temperature: 0 takes the likeliest id; above, ids are drawn.
            seed: Of the draws.

        Raises:
            ValueError: There is no prompt, or one is empty.
        """
        if not prompts or not all(len(prompt) for prompt in prompts):
            raise ValueError("prompts must be at least one, each with an id or more")
        token_ids, lengths = _pad(prompts, self._multiple)
        tokens = self._run(
            weights,
            token_ids,
            lengths,
            jax.random.key(seed),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
        )
        rows = np.asarray(tokens)[: len(prompts)].tolist()
        return [_until(row, self._stops) for row in rows]


def _generate(
    stacked: Stacked,
    stops: tuple[int, ...],
    weights: Weights,
    token_ids: jax.Array,
    lengths: jax.Array,
    key: jax.Array,
    *,
    max_new_tokens: int,
    temperature: float,
) -> jax.Array:
    """Return int32 [batch, max_new_tokens], -1 after a row's end."""
    batch, prompt_length = token_ids.shape
    hidden, cache = stacked.prefill(
        weights, token_ids, cache_length=prompt_length + max_new_tokens
    )
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    tokens = jnp.full((batch, max_new_tokens), -1, "int32")
    stop_ids = jnp.asarray(stops or (-1,))

    def choose(hidden: jax.Array, step: jax.Array) -> jax.Array:
        table = stacked.constraints.embedding(weights["token_embedding/embeddings"])
        cap = stacked.config.final_logit_soft_cap
        logits = unembed(hidden, table, soft_cap=cap)
        if temperature == 0.0:
            return logits.argmax(-1).astype("int32")
        drawn = jax.random.fold_in(key, step)
        return jax.random.categorical(drawn, logits / temperature).astype("int32")

    def advance(carry: tuple) -> tuple:
        step, hidden, cache, tokens, is_done = carry
        token = choose(hidden, step)
        tokens = tokens.at[:, step].set(jnp.where(is_done, -1, token))
        is_done |= jnp.isin(token, stop_ids)
        hidden, cache = stacked.decode(weights, token, lengths + step, cache)
        return step + 1, hidden, cache, tokens, is_done

    def goes_on(carry: tuple) -> jax.Array:
        return (carry[0] < max_new_tokens) & ~carry[4].all()

    start = (jnp.zeros((), "int32"), last, cache, tokens, jnp.zeros(batch, bool))
    return jax.lax.while_loop(goes_on, advance, start)[3]


def _pad(
    prompts: Sequence[Sequence[int]], multiple: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return right-padded ids [batch, bucket] and lengths [batch]."""
    longest, bucket = max(map(len, prompts)), SMALLEST_BUCKET
    while bucket < longest:
        bucket *= 2
    rows = -(-len(prompts) // multiple) * multiple
    token_ids = np.zeros((rows, bucket), "int32")
    lengths = np.ones(rows, "int32")
    for row, prompt in enumerate(prompts):
        token_ids[row, : len(prompt)] = prompt
        lengths[row] = len(prompt)
    return token_ids, lengths


def _until(row: Sequence[int], stops: Sequence[int]) -> list[int]:
    """Return a row up to its first stop token or its end (-1)."""
    for place, token in enumerate(row):
        if token in stops or token < 0:
            return list(row[:place])
    return list(row)
