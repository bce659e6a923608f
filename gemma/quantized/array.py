"""A quantized weight as a JAX value: integers and scales that act as one array.

Turns what `gemma.quantized.grid` made back into floats, for the rows, the tile or the
layer that is asked for and never for a whole model. It passes through `jit` and `scan`
like an array, and refuses to know where its parts lie.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from gemma.quantized.grid import ZERO, Quantization, Shape, level


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("values", "scales"),
    meta_fields=("quantization", "axis"),
)
@dataclasses.dataclass(frozen=True)
class QuantizedArray:
    """Integers with the scales of their blocks.

    Attributes:
        values: int8, or uint8 with two int4 codes.
        scales: bfloat16, one for each block.
        quantization: What `values` holds.
        axis: Negative index of the dim that blocks run along.
    """

    values: jax.Array
    scales: jax.Array
    quantization: Quantization
    axis: int

    @property
    def shape(self) -> Shape:
        """Shape of the weight."""
        shape = list(self.values.shape)
        shape[self.axis] *= 2 if self.quantization == "int4" else 1
        return tuple(shape)

    def astype(self, dtype: str | jnp.dtype) -> jax.Array:
        """Return the weight, computed in `dtype`."""
        axis = self.axis + self.values.ndim
        blocks = self.scales.shape[axis]
        before, after = self.values.shape[:axis], self.values.shape[axis + 1 :]
        values = self.values.reshape(*before, blocks, -1, *after)
        if self.quantization == "int4":
            halves = values & 0xF, values >> 4
            values = jnp.concatenate(halves, axis=axis + 1).astype("int8") - ZERO
            values = level(values.astype(dtype))
        scales = jnp.expand_dims(self.scales, axis + 1)
        weight = values.astype(dtype) * scales.astype(dtype)
        return weight.reshape(self.shape)

    def __getitem__(self, index: int | jax.Array) -> QuantizedArray:
        """Return the entries of the first dim that an integer or integers name."""
        return jax.tree.map(lambda part: part[index], self)


Table = jax.Array | QuantizedArray
"""Something with rows: an embedding [vocabulary, dim], float or quantized."""


def split_rows(table: Table, *sizes: int) -> Table:
    """Return a table as [*sizes, dim]; the sizes multiply to its rows."""
    return jax.tree.map(lambda part: part.reshape(*sizes, part.shape[-1]), table)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def frozen_einsum(
    equation: str, inputs: jax.Array, kernel: QuantizedArray
) -> jax.Array:
    """Return einsum(equation, inputs, kernel), with a gradient for the inputs only.

    The backward pass makes the floats again: kept for it, those of all layers would
    stand in memory at once.
    """
    return jnp.einsum(equation, inputs, kernel.astype(inputs.dtype))


def _forward(
    equation: str, inputs: jax.Array, kernel: QuantizedArray
) -> tuple[jax.Array, QuantizedArray]:
    return frozen_einsum(equation, inputs, kernel), kernel


def _backward(
    equation: str, kernel: QuantizedArray, upstream: jax.Array
) -> tuple[jax.Array, None]:
    tokens, weight_and_output = equation.split(",")
    weight, output = weight_and_output.split("->")
    transposed = f"{output},{weight}->{tokens}"
    return jnp.einsum(transposed, upstream, kernel.astype(upstream.dtype)), None


frozen_einsum.defvjp(_forward, _backward)
