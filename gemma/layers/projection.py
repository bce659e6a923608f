"""A linear map with an optional low-rank adapter beside its kernel.

Turns an einsum over one kernel into that einsum plus scale * (x A) B. The product A B
is never formed: for query and value of Gemma 2 9B it would be a second copy of them.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from gemma.lora import Factorisation, pair_shapes
from gemma.quantized.array import frozen_einsum
from gemma.quantized.grid import Quantization
from gemma.quantized.variable import QuantizedVariable


@dataclasses.dataclass(frozen=True)
class Unmerged:
    """Host copies of what merging overwrites, bit for bit."""

    kernel: np.ndarray
    lora_kernel_b: np.ndarray


class Projection(keras.layers.EinsumDense):
    """`keras.layers.EinsumDense` whose adapter is float32 and kept apart.

    With `keras` factors, A has the kernel's dims with `rank` for the last one and
    B is (rank, last): Keras's and KerasHub's form. With `shared` factors, a kernel
    (heads, hidden, head_dim) gets A (hidden, rank) and B (rank, heads, head_dim): a
    rank-r matrix over all heads, which is what PEFT can say.
    """

    factorisation: Factorisation = "keras"
    lora_dropout: float = 0.0
    lora_seed_generator: keras.random.SeedGenerator | None = None
    quantized: QuantizedVariable | None = None

    def quantize_kernel(self, quantization: Quantization) -> None:
        """Put integers and scales in place of the kernel, for good.

        Raises:
            ValueError: The kernel is quantized already, or the layer has an adapter.
        """
        if self.quantized is not None or self.lora_enabled:
            have = "an adapter" if self.lora_enabled else "a quantized kernel"
            raise ValueError(f"{self.path} has {have} already")
        self.quantized = QuantizedVariable(self, self._kernel, quantization)
        self._kernel = None

    def enable_lora(
        self,
        rank: int,
        lora_alpha: float | None = None,
        *,
        factorisation: Factorisation = "keras",
        dropout: float = 0.0,
        seed_generator: keras.random.SeedGenerator | None = None,
    ) -> None:
        """Freeze the kernel and add the adapter; B starts at zero.

        Args:
            rank: Inner dim of the factors.
            lora_alpha: The adapter is scaled by lora_alpha / rank; `rank` by default.
            factorisation: Form of the factors; kernels without a dim of heads that
                their inputs lack are `keras` always.
            dropout: Share of the adapter's inputs that is dropped while training.
            seed_generator: Of the dropout.

        Raises:
            ValueError: The layer has an adapter, is not built, or rank < 1.
        """
        if self.lora_enabled:
            raise ValueError(f"{self.path} has an adapter already")
        if not self.built:
            raise ValueError(f"{self.name} must be built before it gets an adapter")
        if rank < 1:
            raise ValueError(f"rank must be at least 1, received {rank}")
        shared = factorisation == "shared" and self.adds_heads
        shape_a, shape_b = pair_shapes(self._kernel_shape, rank, shared=shared)
        self._tracker.unlock()
        first = _first_factor(factorisation)
        self.lora_kernel_a = self._add_factor("lora_kernel_a", shape_a, first)
        self.lora_kernel_b = self._add_factor("lora_kernel_b", shape_b, "zeros")
        if self._kernel is not None:
            self._kernel.trainable = False
        self.lora_dropout, self.lora_seed_generator = dropout, seed_generator
        self._tracker.lock()
        self.lora_enabled, self.lora_rank = True, rank
        self.lora_alpha = float(rank if lora_alpha is None else lora_alpha)
        self.factorisation = "shared" if shared else "keras"

    @property
    def adds_heads(self) -> bool:
        """Whether the kernel gives every token a dim of heads that it had not."""
        tokens, kernel_and_output = self.equation.split(",")
        kernel, output = kernel_and_output.split("->")
        return kernel[0] in output and kernel[0] not in tokens and len(kernel) == 3

    def _add_factor(
        self,
        name: str,
        shape: tuple[int, ...],
        initializer: str | keras.initializers.Initializer,
    ) -> keras.Variable:
        # float32 whatever the policy: bfloat16 swallows Adam's updates (keras#22559)
        return self.add_weight(
            name=name, shape=shape, initializer=initializer, dtype="float32"
        )

    def call(self, inputs: jax.Array, training: bool | None = None) -> jax.Array:
        """Map `inputs` by the layer's equation, adapter included.

        A policy of `jax.checkpoint` knows the result by the layer's name.
        """
        return checkpoint_name(self._map(inputs, training), self.name)

    def _map(self, inputs: jax.Array, training: bool | None) -> jax.Array:
        if self.quantized is not None:
            outputs = frozen_einsum(self.equation, inputs, self.quantized.value)
        else:
            kernel = jnp.asarray(self._kernel.value, self.compute_dtype)
            outputs = project(self.equation, inputs, kernel)
        if not self.lora_enabled:
            return outputs
        if training and self.lora_dropout:
            inputs = keras.random.dropout(
                inputs, self.lora_dropout, seed=self.lora_seed_generator
            )
        scale = self.lora_alpha / self.lora_rank
        return outputs + (scale * self._adapter(inputs)).astype(outputs.dtype)

    def _adapter(self, inputs: jax.Array) -> jax.Array:
        a = jnp.asarray(self.lora_kernel_a.value, self.compute_dtype)
        b = jnp.asarray(self.lora_kernel_b.value, self.compute_dtype)
        if self.factorisation == "shared":
            return jnp.einsum("btr,rnh->btnh", jnp.einsum("btd,dr->btr", inputs, a), b)
        return jnp.einsum(self.equation, inputs, a) @ b

    @property
    def kernel(self) -> keras.Variable | jax.Array:
        """The kernel with the adapter merged, computed in float32.

        A quantized one is what its integers stand for, not what it was made from.
        """
        quantized = self.quantized and self.quantized.value.astype("float32")
        if not self.lora_enabled:
            return self._kernel if quantized is None else quantized
        merged = merge_adapter(
            self._kernel.value if quantized is None else quantized,
            self.lora_kernel_a.value,
            self.lora_kernel_b.value,
            scale=self.lora_alpha / self.lora_rank,
        )
        return merged.astype(self.variable_dtype)

    def merge(self) -> Unmerged:
        """Add the adapter to the kernel, empty and freeze it; return what was there.

        B becomes zero and the adapter stays part of the computation, so that a
        function which was compiled before, or is compiled meanwhile, stays right.

        Raises:
            ValueError: The kernel is quantized: the adapter would be rounded away.
        """
        if self.quantized is not None:
            raise ValueError(
                f"{self.path} is quantized and takes no adapter into its kernel; "
                "save_to_preset merges into the float weights of the preset"
            )
        kept = Unmerged(
            np.array(self._kernel.value), np.array(self.lora_kernel_b.value)
        )
        self._kernel.assign(self.kernel)
        self.lora_kernel_b.assign(np.zeros_like(kept.lora_kernel_b))
        self._set_adapter_trainable(False)
        return kept

    def unmerge(self, kept: Unmerged) -> None:
        """Put back what `merge` returned; the adapter can be trained again."""
        self._kernel.assign(kept.kernel)
        self.lora_kernel_b.assign(kept.lora_kernel_b)
        self._set_adapter_trainable(True)

    @property
    def _kernel_shape(self) -> tuple[int, ...]:
        whole = self._kernel if self.quantized is None else self.quantized
        return tuple(whole.shape)

    def _set_adapter_trainable(self, trainable: bool) -> None:
        self.lora_kernel_a.trainable = trainable
        self.lora_kernel_b.trainable = trainable


def merge_adapter(
    kernel: jax.Array, a: jax.Array, b: jax.Array, *, scale: float
) -> jax.Array:
    """Return kernel + scale * A B in float32; the form is read off the shapes of B."""
    a, b = jnp.asarray(a, "float32"), jnp.asarray(b, "float32")
    delta = jnp.einsum("dr,rnh->ndh", a, b) if b.ndim == 3 else a @ b
    return jnp.asarray(kernel, "float32") + scale * delta


def project(equation: str, inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return the einsum of an equation over a kernel.

    For one token a row, while decoding, heads are multiplied as they lie in the kernel:
    XLA:CPU copies the whole kernel transposed for an einsum over them.
    """
    if inputs.shape[1] != 1 or kernel.ndim != 3:
        return jnp.einsum(equation, inputs, kernel)
    batch = inputs.shape[0]
    if inputs.ndim == 4:  # (batch, 1, heads, head_dim) x (heads, head_dim, hidden)
        return inputs.reshape(batch, 1, -1) @ kernel.reshape(-1, kernel.shape[-1])
    rows = jnp.broadcast_to(inputs[:, 0], (kernel.shape[0], batch, inputs.shape[-1]))
    return (rows @ kernel).swapaxes(0, 1)[:, None]


def _first_factor(factorisation: Factorisation) -> str | keras.initializers.Initializer:
    """Return how A begins: as in the library that has this form.

    Both draw from U(-b, b): KerasHub with b = sqrt(6 / fan-in), PEFT 0.21 with
    b = sqrt(1 / fan-in).
    """
    if factorisation == "keras":
        return "he_uniform"
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
