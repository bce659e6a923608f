"""Continues prompts token by token, on stacked weights, as one compiled program.

Turns prompts of unequal length into the tokens that follow. Prompts are padded on the
left to a bucket of lengths, and their batch to a multiple of what the mesh wants; what
stands in another row changes no row's tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gemma.arrays import fetch
from gemma.decoding.sampling import GREEDY, Sampler, SamplerValues, draw, likeliest
from gemma.decoding.stopping import (
    END,
    StopSequences,
    ends_here,
    stop_table,
    until_stop,
)
from gemma.layers.token_embedding import unembed_one_token
from gemma.stacked import Stacked
from gemma.stacked.cached import DecodingState, decode, prefill
from gemma.stacked.forward import Weights

SMALLEST_BUCKET = 32
Run = Callable[..., jax.Array]
STATIC = ("capacity", "is_greedy", "filters")


class Decoder:
    """Generates with one set of functions; compiles once a bucket of lengths.

    Args:
        stacked: The model's functions.
        stop_token_ids: Ids that end a row; they are not part of its result.
        stop_sequences: Sequences of ids that end a row, as such.
        batch_multiple: Rows are padded to a multiple, so that a mesh divides them.
        keep: Turns the jitted function into one that does the same, such as one whose
            programs are kept on disk; its arguments `STATIC` are part of the program.

    Raises:
        ValueError: A stop sequence is empty.
    """

    def __init__(
        self,
        stacked: Stacked,
        stop_token_ids: Sequence[int],
        *,
        stop_sequences: Sequence[Sequence[int]] = (),
        batch_multiple: int = 1,
        keep: Callable[[Run], Run] | None = None,
    ) -> None:
        self._stops = stop_table(stop_token_ids, stop_sequences)
        self._multiple = batch_multiple
        self._jitted = jax.jit(
            functools.partial(_generate, stacked, self._stops), static_argnames=STATIC
        )
        self._run = keep(self._jitted) if keep else self._jitted

    def generate(
        self,
        weights: Weights,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int | Sequence[int],
        sampler: Sampler = GREEDY,
        seed: int = 0,
    ) -> list[list[int]]:
        """Return the ids that follow each prompt, up to a stop token.

        Args:
            weights: An array for every path of the state tree.
            prompts: Ids with BOS, none empty.
            max_new_tokens: Ids to add at most, to every prompt or to each its own.
            sampler: How an id is chosen; the likeliest by default.
            seed: Of the draws. A row's draws follow from the seed and its index
                among the prompts, whatever the other rows and the padding are.

        Raises:
            ValueError: There is no prompt, one is empty, or `max_new_tokens` does not
                belong to the prompts.
        """
        if not len(prompts) or not all(len(prompt) for prompt in prompts):
            raise ValueError("prompts must be at least one, each with an id or more")
        if isinstance(max_new_tokens, int):
            max_new_tokens = [max_new_tokens] * len(prompts)
        if len(max_new_tokens) != len(prompts) or min(max_new_tokens) < 0:
            raise ValueError(
                "max_new_tokens must be a number from 0, or one for each of the "
                f"{len(prompts)} prompts, received {max_new_tokens}"
            )
        token_ids, starts, limits = _pad(prompts, max_new_tokens, self._multiple)
        tokens = self._run(
            weights,
            token_ids,
            starts=starts,
            limits=limits,
            values=sampler.values(),
            key=jax.random.key(seed),
            capacity=_bucket(max(max_new_tokens)),
            is_greedy=sampler.is_greedy,
            filters=() if sampler.is_greedy else sampler.filters,
        )
        rows = fetch(tokens)[: len(prompts)].tolist()
        return [until_stop(row, self._stops) for row in rows]

    @property
    def programs(self) -> int:
        """Number of programs that were compiled so far, without `keep`."""
        return self._jitted._cache_size()


def _generate(
    stacked: Stacked,
    stops: StopSequences,
    weights: Weights,
    token_ids: jax.Array,
    *,
    starts: jax.Array,
    limits: jax.Array,
    values: SamplerValues,
    key: jax.Array,
    capacity: int,
    is_greedy: bool,
    filters: tuple[str, ...],
) -> jax.Array:
    """Return int32 [batch, capacity], `END` after a row's end or its limit."""
    batch, length = token_ids.shape
    table = stacked.table(weights)
    row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))

    def choose(hidden: jax.Array, step: jax.Array) -> jax.Array:
        cap = stacked.config.final_logit_soft_cap
        logits = unembed_one_token(hidden, table, soft_cap=cap)
        if is_greedy:
            return likeliest(logits)
        keys = jax.vmap(jax.random.fold_in, (0, None))(row_keys, step)
        return draw(logits, values, keys, filters=filters)

    def record(
        step: jax.Array, token: jax.Array, tokens: jax.Array, is_done: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        kept = jnp.where(is_done, END, token)[:, None]
        tokens = jax.lax.dynamic_update_slice(tokens, kept, (0, step))
        is_done |= ends_here(tokens, step, stops) | (step + 1 >= limits)
        return tokens, is_done

    def advance(carry: tuple) -> tuple:
        step, token, state, tokens, is_done = carry
        hidden, state = decode(stacked, weights, token, state)
        token = choose(hidden, step)
        tokens, is_done = record(step, token, tokens, is_done)
        return step + 1, token, state, tokens, is_done

    def goes_on(carry: tuple[jax.Array, jax.Array, DecodingState, ...]) -> jax.Array:
        return ~carry[-1].all()

    hidden, state = prefill(
        stacked, weights, token_ids, starts, columns=length + capacity
    )
    step = jnp.zeros((), "int32")
    token = choose(hidden, step)
    tokens = jnp.full((batch, capacity), END, "int32")
    tokens, is_done = record(step, token, tokens, limits <= 0)
    start = (step + 1, token, state, tokens, is_done)
    return jax.lax.while_loop(goes_on, advance, start)[3]


def _pad(
    prompts: Sequence[Sequence[int]], max_new_tokens: Sequence[int], multiple: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return left-padded ids [batch, bucket], their starts [batch], limits [batch].

    Rows that only fill up the batch may add nothing, so that nobody waits for them.
    """
    rows = -(-len(prompts) // multiple) * multiple
    length = _bucket(max(map(len, prompts)))
    token_ids = np.zeros((rows, length), "int32")
    starts, limits = np.full(rows, length - 1, "int32"), np.zeros(rows, "int32")
    for row, prompt in enumerate(prompts):
        token_ids[row, length - len(prompt) :] = prompt
        starts[row] = length - len(prompt)
        limits[row] = max_new_tokens[row]
    return token_ids, starts, limits


def _bucket(length: int) -> int:
    """Return the smallest power of two that holds `length`, from the smallest one."""
    bucket = SMALLEST_BUCKET
    while bucket < length:
        bucket *= 2
    return bucket
