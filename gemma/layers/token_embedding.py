"""The tied embedding: ids to vectors, and vectors back to soft-capped logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import keras


class ReversibleEmbedding(keras.layers.ReversibleEmbedding):
    """Keras's tied embedding whose logits are float32.

    The class keeps its name, since weight files spell it. bfloat16 logits would lose
    the tail beyond the soft cap of 30.
    """

    def call(self, inputs: jax.Array, reverse: bool = False) -> jax.Array:
        """Embed [batch, seq] ids, or project [batch, seq, dim] to float32 logits."""
        if not reverse:
            return super().call(inputs)
        table = jnp.asarray(self.embeddings.value, self.compute_dtype)
        return unembed(inputs, table, soft_cap=self.logit_soft_cap)

    def compute_output_spec(
        self, inputs: keras.KerasTensor, reverse: bool = False
    ) -> keras.KerasTensor:
        """Tell Keras shape and dtype of either direction."""
        if reverse:
            shape = (*inputs.shape[:-1], self.input_dim)
            return keras.KerasTensor(shape, dtype="float32")
        return keras.KerasTensor((*inputs.shape, self.output_dim), self.compute_dtype)


def unembed(
    hidden: jax.Array, table: jax.Array, *, soft_cap: float | None
) -> jax.Array:
    """Project hidden [..., dim] on table [vocabulary, dim] to float32 logits.

    Source of the cap: Gemma 2 report, section 2: cap * tanh(logits / cap).
    """
    logits = jnp.einsum(
        "...d,vd->...v",
        hidden,
        table.astype(hidden.dtype),
        preferred_element_type="float32",
    )
    return apply_soft_cap(logits, soft_cap)


def apply_soft_cap(logits: jax.Array, soft_cap: float | None) -> jax.Array:
    """Bound logits to (-soft_cap, soft_cap); None leaves them."""
    return logits if soft_cap is None else jnp.tanh(logits / soft_cap) * soft_cap
