"""Root-mean-square normalisation with Gemma's offset scale."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import keras


class RMSNormalization(keras.layers.Layer):
    """Divide by the root mean square over the last dim and multiply by 1 + scale.

    Computed in float32 whatever the policy: bfloat16 squares lose the small inputs
    that `epsilon` is for.
    """

    def __init__(self, epsilon: float = 1e-6, **kwargs: object) -> None:
        super().__init__(autocast=False, **kwargs)
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create `scale`, shape (input_shape[-1],), zeros."""
        self.scale = self.add_weight(
            name="scale", shape=(input_shape[-1],), initializer="zeros", trainable=True
        )
        self.built = True

    def call(self, x: jax.Array) -> jax.Array:
        """Normalise [..., dim] in float32 and return the compute dtype."""
        scale = jnp.asarray(self.scale.value, "float32")
        x = x.astype("float32")
        mean_square = jnp.mean(jnp.square(x), -1, keepdims=True)
        inverse = jax.lax.rsqrt(mean_square + self.epsilon)
        return (x * inverse * (1.0 + scale)).astype(self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "epsilon": self.epsilon}
