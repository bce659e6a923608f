"""The tied embedding: ids to vectors, and vectors back to soft-capped logits."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import keras

from gemma.quantized.array import QuantizedArray, Table, split_rows
from gemma.quantized.grid import Quantization
from gemma.quantized.variable import QuantizedVariable

TILE = 2048
"""Vocabulary entries of a quantized table that are floats at a time."""


class ReversibleEmbedding(keras.layers.ReversibleEmbedding):
    """Keras's tied embedding whose logits are float32.

    The class keeps its name, since weight files spell it. bfloat16 logits would lose
    the tail beyond the soft cap of 30.
    """

    quantized: QuantizedVariable | None = None

    def quantize_embeddings(self, quantization: Quantization) -> None:
        """Put integers and scales in place of the table, for good.

        Raises:
            ValueError: It is quantized already.
        """
        if self.quantized is not None:
            raise ValueError(f"{self.path} is quantized already")
        self.quantized = QuantizedVariable(self, self._embeddings, quantization)
        self._embeddings = None

    def call(self, inputs: jax.Array, reverse: bool = False) -> jax.Array:
        """Embed [batch, seq] ids, or project [batch, seq, dim] to float32 logits."""
        if self.quantized is not None:
            table: Table = self.quantized.value
        elif reverse:
            table = jnp.asarray(self.embeddings.value, self.compute_dtype)
        else:
            return super().call(inputs)
        if not reverse:
            return table[inputs].astype(self.compute_dtype)
        return unembed(inputs, table, soft_cap=self.logit_soft_cap)

    def compute_output_spec(
        self, inputs: keras.KerasTensor, reverse: bool = False
    ) -> keras.KerasTensor:
        """Tell Keras shape and dtype of either direction."""
        if reverse:
            shape = (*inputs.shape[:-1], self.input_dim)
            return keras.KerasTensor(shape, dtype="float32")
        return keras.KerasTensor((*inputs.shape, self.output_dim), self.compute_dtype)


def unembed(hidden: jax.Array, table: Table, *, soft_cap: float | None) -> jax.Array:
    """Project hidden [..., dim] on table [vocabulary, dim] to float32 logits.

    A quantized table becomes floats one tile at a time.

    Source of the cap: Gemma 2 report, section 2: cap * tanh(logits / cap).
    """
    return apply_soft_cap(_in_tiles(_logits, hidden, table), soft_cap)


def unembed_one_token(
    hidden: jax.Array, table: Table, *, soft_cap: float | None
) -> jax.Array:
    """Project hidden [batch, dim], as `unembed` does and quicker: for a decoding step.

    It is for the one projection of a program. Two of them on one table would share
    products, of which jaxlib 0.10.2 on a CPU then makes an array: 235 GB for 349 tokens
    over 262,144 x 640.
    """
    return apply_soft_cap(_in_tiles(_logits_of_one_token, hidden, table), soft_cap)


def tile_size(entries: int, largest: int) -> int:
    """Return the largest divisor up to `largest`, or all where it is a small one."""
    top = min(entries, largest)
    size = max(n for n in range(1, top + 1) if entries % n == 0)
    return size if 8 * size >= top else entries


def _in_tiles(
    project: Callable[[jax.Array, Table], jax.Array], hidden: jax.Array, table: Table
) -> jax.Array:
    """Return the logits of a table; a quantized one becomes floats tile by tile."""
    if not isinstance(table, QuantizedArray):
        return project(hidden, table)
    entries = table.shape[0]
    size = tile_size(entries, TILE)
    tiles = split_rows(table, entries // size, size)
    logits = jax.lax.map(lambda tile: project(hidden, tile), tiles)
    return jnp.moveaxis(logits, 0, -2).reshape(*hidden.shape[:-1], entries)


def _logits(hidden: jax.Array, table: Table) -> jax.Array:
    table = table.astype(hidden.dtype)
    return jnp.einsum("...d,vd->...v", hidden, table, preferred_element_type="float32")


def _logits_of_one_token(hidden: jax.Array, table: Table) -> jax.Array:
    """Return float32 [batch, vocabulary] for hidden [batch, dim], the table first.

    jaxlib 0.10.2 on a CPU takes 16.9 ms for 8 tokens over 262,144 x 640 in float32 with
    the table as first operand, 23.9 with it as second, and 10 to 15 % less than 16.9
    for a sum of products, which becomes the same kernel with other blocks.
    """

    def product(hidden: jax.Array, table: jax.Array) -> jax.Array:
        return jnp.einsum("vd,bd->vb", table, hidden, preferred_element_type="float32")

    def sum_of_products(hidden: jax.Array, table: jax.Array) -> jax.Array:
        return (table[:, None] * hidden[None]).sum(-1)

    is_whole = not isinstance(table, QuantizedArray)
    table = table.astype(hidden.dtype)
    if hidden.dtype != "float32" or not is_whole:
        return product(hidden, table).T
    return jax.lax.platform_dependent(
        hidden, table, cpu=sum_of_products, default=product
    ).T


def apply_soft_cap(logits: jax.Array, soft_cap: float | None) -> jax.Array:
    """Bound logits to (-soft_cap, soft_cap); None leaves them."""
    return logits if soft_cap is None else jnp.tanh(logits / soft_cap) * soft_cap
