"""One Gemma decoder block: attention and gated feed-forward, each around a residual.

Used twice: as a layer of the Keras model, and as the template whose variables the
scan over layers replaces (`gemma.stacked`).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import keras
from jax.ad_checkpoint import checkpoint_name

from gemma.attention import Attention
from gemma.config import AttentionKind, GemmaConfig
from gemma.layers.attention import (
    Cache,
    CachedGemma3Attention,
    CachedGemmaAttention,
    KeysAndValues,
)
from gemma.layers.projection import Projection
from gemma.layers.rms_normalization import RMSNormalization
from gemma.lora import PROJECTIONS

Constraint = Callable[[jax.Array], jax.Array]
"""Says how hidden states [batch, seq, hidden] lie on devices."""


def unconstrained(x: jax.Array) -> jax.Array:
    """Return hidden states as they lie."""
    return x


class GemmaDecoderBlock(keras.layers.Layer):
    """A block of Gemma 1 or 2; `config` says which norms it has."""

    attention_class = CachedGemmaAttention

    def __init__(
        self, config: GemmaConfig, kind: AttentionKind = "global", **kwargs: object
    ) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.kind = kind
        self.seed_generator: keras.random.SeedGenerator | None = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the sub-layers in KerasHub's order, which adapter files rely on."""
        config = self.config
        self.pre_attention_norm = self._norm("pre_attention_norm", input_shape)
        if config.use_post_attention_norm:
            self.post_attention_norm = self._norm("post_attention_norm", input_shape)
        self.attention = self.attention_class(
            config, self.kind, dtype=self.dtype_policy, name="attention"
        )
        self.attention.build(input_shape)
        if config.dropout:
            self.add_seed_generator()
        self.pre_ffw_norm = self._norm("pre_ffw_norm", input_shape)
        if config.use_post_ffw_norm:
            self.post_ffw_norm = self._norm("post_ffw_norm", input_shape)
        wide, hidden = config.ffw_dim, config.hidden_dim
        narrow_shape = (*input_shape[:-1], wide)
        self.gating_ffw = self._dense("ffw_gating", wide, input_shape)
        self.gating_ffw_2 = self._dense("ffw_gating_2", wide, input_shape)
        self.ffw_linear = self._dense("ffw_linear", hidden, narrow_shape)
        self.built = True

    def _norm(self, name: str, shape: tuple[int | None, ...]) -> RMSNormalization:
        norm = RMSNormalization(
            self.config.layer_norm_epsilon, dtype=self.dtype_policy, name=name
        )
        norm.build(shape)
        return norm

    def _dense(
        self, name: str, output_dim: int, shape: tuple[int | None, ...]
    ) -> Projection:
        dense = Projection(
            "btx,xy->bty",
            output_shape=(None, output_dim),
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            dtype=self.dtype_policy,
            name=name,
        )
        dense.build(shape)
        return dense

    def add_seed_generator(self) -> keras.random.SeedGenerator:
        """Return the generator of all of the block's dropouts; make it when missing."""
        if self.seed_generator is None:
            self._tracker.unlock()  # a built layer takes no new state
            self.seed_generator = keras.random.SeedGenerator(seed=0)
            if self.built:
                self._tracker.lock()
        return self.seed_generator

    def projections(self) -> dict[str, Projection]:
        """Map the names of the projections to their layers."""
        attention = self.attention
        layers = (
            attention.query_dense,
            attention.key_dense,
            attention.value_dense,
            attention.output_dense,
            self.gating_ffw,
            self.gating_ffw_2,
            self.ffw_linear,
        )
        return dict(zip(PROJECTIONS, layers, strict=True))

    def call(
        self,
        x: jax.Array,
        padding_mask: jax.Array | None = None,
        *,
        positions: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        training: bool | None = None,
    ) -> jax.Array:
        """Map x [batch, seq, hidden] to the same shape; see `step` for the rest."""
        return self.step(
            x,
            padding_mask=padding_mask,
            positions=positions,
            segment_ids=segment_ids,
            training=training,
        )[0]

    def compute_output_shape(
        self, x_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Return the input's shape; else Keras traces each block, 50 ms a layer."""
        return x_shape

    def step(
        self,
        x: jax.Array,
        *,
        positions: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        padding_mask: jax.Array | None = None,
        cache: Cache | None = None,
        attend: Attention | None = None,
        training: bool | None = None,
        enter: Constraint = unconstrained,
        leave: Constraint = unconstrained,
    ) -> tuple[jax.Array, KeysAndValues]:
        """Run the block and return its keys and values too, for decoding.

        Args as in `CachedGemmaAttention.call`; `positions` default to 0, 1, 2, ...
        What enters the block's products passes through `enter`, and what they add to
        the hidden states through `leave`: the caller's mesh says how they lie.
        """
        if positions is None:
            positions = jnp.arange(x.shape[1], dtype="int32")[None]
        mixed, kept = self.attention(
            enter(self.pre_attention_norm(x)),
            positions=positions,
            segment_ids=segment_ids,
            padding_mask=padding_mask,
            cache=cache,
            attend=attend,
            training=training,
        )
        mixed = checkpoint_name(leave(mixed), "attention_output")
        if self.config.use_post_attention_norm:
            mixed = self.post_attention_norm(mixed)
        x = x + self._drop(mixed, training)
        wide = enter(self.pre_ffw_norm(x))
        gate = jax.nn.gelu(self.gating_ffw(wide, training=training), approximate=True)
        wide = gate * self.gating_ffw_2(wide, training=training)
        narrow = leave(self.ffw_linear(wide, training=training))
        narrow = checkpoint_name(narrow, "ffw_linear")
        if self.config.use_post_ffw_norm:
            narrow = self.post_ffw_norm(narrow)
        return x + self._drop(narrow, training), kept

    def _drop(self, x: jax.Array, training: bool | None) -> jax.Array:
        if not training or not self.config.dropout:
            return x
        return keras.random.dropout(x, self.config.dropout, seed=self.seed_generator)


class Gemma3DecoderBlock(GemmaDecoderBlock):
    """A block of Gemma 3: queries and keys are normalised, RoPE depends on the kind."""

    attention_class = CachedGemma3Attention
