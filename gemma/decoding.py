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
            static_argnames=("capacity", "temperature"),
        )

    def generate(
        self,
        weights: Weights,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int | Sequence[int],
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[list[int]]:
        """Return the ids that follow each prompt, up to a stop token.

        Args:
            weights: An array for every path of the state tree.
            prompts: Ids with BOS, none empty.
            max_new_tokens: Ids to add at most, to every prompt or to each its own.
            temperature: 0 takes the likeliest id; above, ids are drawn.
            seed: Of the draws.

        Raises:
            ValueError: There is no prompt, one is empty, or `max_new_tokens` does not
                belong to the prompts.
        """
        if not prompts or not all(len(prompt) for prompt in prompts):
            raise ValueError("prompts must be at least one, each with an id or more")
        if isinstance(max_new_tokens, int):
            max_new_tokens = [max_new_tokens] * len(prompts)
        if len(max_new_tokens) != len(prompts) or min(max_new_tokens) < 0:
            raise ValueError(
                "max_new_tokens must be a number from 0, or one for each of the "
                f"{len(prompts)} prompts, received {max_new_tokens}"
            )
        token_ids, lengths, limits = _pad(prompts, max_new_tokens, self._multiple)
        tokens = self._run(
            weights,
            token_ids,
            lengths,
            limits,
            jax.random.key(seed),
            capacity=_bucket(max(max_new_tokens)),
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
    limits: jax.Array,
    key: jax.Array,
    *,
    capacity: int,
    temperature: float,
) -> jax.Array:
    """Return int32 [batch, capacity], -1 after a row's end or its limit."""
    batch, prompt_length = token_ids.shape
    hidden, cache = stacked.prefill(
        weights, token_ids, cache_length=prompt_length + capacity
    )
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    tokens = jnp.full((batch, capacity), -1, "int32")
    stop_ids = jnp.asarray(stops or (-1,))

    def choose(hidden: jax.Array, step: jax.Array) -> jax.Array:
        table = stacked.table(weights)
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
        is_done |= jnp.isin(token, stop_ids) | (step + 1 >= limits)
        hidden, cache = stacked.decode(weights, token, lengths + step, cache)
        return step + 1, hidden, cache, tokens, is_done

    def goes_on(carry: tuple) -> jax.Array:
        return ~carry[4].all()

    start = (jnp.zeros((), "int32"), last, cache, tokens, limits <= 0)
    return jax.lax.while_loop(goes_on, advance, start)[3]


def _pad(
    prompts: Sequence[Sequence[int]], max_new_tokens: Sequence[int], multiple: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return right-padded ids [batch, bucket], lengths [batch] and limits [batch].

    Rows that only fill up the batch may add nothing, so that nobody waits for them.
    """
    rows = -(-len(prompts) // multiple) * multiple
    token_ids = np.zeros((rows, _bucket(max(map(len, prompts)))), "int32")
    lengths, limits = np.ones(rows, "int32"), np.zeros(rows, "int32")
    for row, prompt in enumerate(prompts):
        token_ids[row, : len(prompt)] = prompt
        lengths[row] = len(prompt)
        limits[row] = max_new_tokens[row]
    return token_ids, lengths, limits


def _bucket(length: int) -> int:
    """Return the smallest power of two that holds `length`, from the smallest one."""
    bucket = SMALLEST_BUCKET
    while bucket < length:
        bucket *= 2
    return bucket


def _until(row: Sequence[int], stops: Sequence[int]) -> list[int]:
    """Return a row up to its first stop token or its end (-1)."""
    for place, token in enumerate(row):
        if token in stops or token < 0:
            return list(row[:place])
    return list(row)
