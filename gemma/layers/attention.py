"""Gemma's grouped attention: projections, rotary positions, scores, output.

Variables are those of KerasHub's `CachedGemmaAttention` and `CachedGemma3Attention`:
`query`, `key`, `value`, `attention_output`, in Gemma 3 `query_norm` and `key_norm` too;
attributes `query_dense` and so on, in its order of creation.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import keras

from gemma.attention import Attention, Target, attend_one_query, see
from gemma.config import AttentionKind, GemmaConfig
from gemma.layers.projection import Projection
from gemma.layers.rms_normalization import RMSNormalization
from gemma.layers.rotary import rotate

KeysAndValues = tuple[jax.Array, jax.Array]
"""Of tokens, each [batch, tokens, kv_heads, head_dim]; or of a cache, as there."""


class Cache(NamedTuple):
    """What one layer remembers of the tokens before, and where the next one goes.

    Heads stand beside each other in one dim: with a dim of their own, XLA:CPU copies
    the cache in each step where there is one head.

    Attributes:
        keys: [batch, places, kv_heads x head_dim].
        values: As `keys`.
        place: int32 [], where the token of every row enters.
        visible: bool [batch or 1, 1, places], `place` itself included.
    """

    keys: jax.Array
    values: jax.Array
    place: jax.Array
    visible: jax.Array


class CachedGemmaAttention(keras.layers.Layer):
    """Attention of one layer, within a window (`local`) or over everything."""

    def __init__(
        self, config: GemmaConfig, kind: AttentionKind = "global", **kwargs: object
    ) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.window = config.sliding_window_size if kind == "local" else None
        self.rope = config.rope(kind)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the four projections; initialisers as in KerasHub (normal, 0.02)."""
        config = self.config
        heads = (None, config.num_query_heads, config.head_dim)
        kv_heads = (None, config.num_key_value_heads, config.head_dim)
        self.query_dense = self._projection("query", "btd,ndh->btnh", heads)
        self.query_dense.build(input_shape)
        self.key_dense = self._projection("key", "bsd,kdh->bskh", kv_heads)
        self.key_dense.build(input_shape)
        self.value_dense = self._projection("value", "bsd,kdh->bskh", kv_heads)
        self.value_dense.build(input_shape)
        if config.use_query_key_norm:
            self.query_norm = self._norm("query_norm", heads)
            self.key_norm = self._norm("key_norm", kv_heads)
        self.output_dense = self._projection(
            "attention_output", "btnh,nhd->btd", (None, config.hidden_dim)
        )
        self.output_dense.build((*input_shape[:-1], *heads[1:]))
        self.built = True

    def _projection(
        self, name: str, equation: str, output_shape: tuple[int | None, ...]
    ) -> Projection:
        return Projection(
            equation,
            output_shape=output_shape,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            dtype=self.dtype_policy,
            name=name,
        )

    def _norm(self, name: str, shape: tuple[int | None, ...]) -> RMSNormalization:
        norm = RMSNormalization(
            self.config.layer_norm_epsilon, dtype=self.dtype_policy, name=name
        )
        norm.build(shape)
        return norm

    def call(
        self,
        x: jax.Array,
        *,
        positions: jax.Array,
        segment_ids: jax.Array | None = None,
        padding_mask: jax.Array | None = None,
        cache: Cache | None = None,
        attend: Attention | None = None,
        training: bool | None = None,
    ) -> tuple[jax.Array, KeysAndValues]:
        """Return the mix [batch, seq, hidden], and the keys and values it is of.

        Without a cache, queries and keys are the tokens of `x` in order. With one,
        `x` holds one token a row, whose key and value enter the cache; it says what
        the token sees.

        Args:
            x: [batch, seq, hidden], normalised.
            positions: int32 [batch, seq], for the rotation.
            segment_ids: int32 [batch, seq]; rows of a packed sequence.
            padding_mask: [batch, seq], false for padding keys.
            cache: Keys and values of the tokens before.
            attend: How tokens attend to each other without a cache; None: as suits
                the device that JAX runs on.
            training: Whether adapter dropout is on.
        """
        query = self.query_dense(x, training=training)
        key = self.key_dense(x, training=training)
        value = self.value_dense(x, training=training)
        if self.config.use_query_key_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        query = rotate(query, positions, self.rope)
        key = rotate(key, positions, self.rope)
        query = query * jnp.asarray(self.config.query_scale, query.dtype)
        soft_cap = self.config.attention_logit_soft_cap
        if cache is None:
            attend = attend or attention_here()
            sight = see(self.window, segment_ids, padding_mask)
            mixed = attend(query, key, value, sight, soft_cap=soft_cap)
        else:
            heads = key.shape[2:]
            key = write_token(cache.keys, key, cache.place)
            value = write_token(cache.values, value, cache.place)
            keys, values = (x.reshape(*x.shape[:2], *heads) for x in (key, value))
            mixed = attend_one_query(
                query, keys, values, cache.visible, soft_cap=soft_cap
            )
        return self.output_dense(mixed, training=training), (key, value)


class CachedGemma3Attention(CachedGemmaAttention):
    """The same attention under the name that Gemma 3's weight files spell."""


def attention_here() -> Attention:
    """Return the attention of a Keras model used alone, on JAX's own devices.

    Under a Keras distribution XLA splits the program by itself, and it can split no
    kernel.
    """
    is_split = keras.distribution.distribution() is not None
    target = Target(jax.default_backend())
    return Attention(choice="blocked" if is_split else "auto", target=target)


def write_token(kept: jax.Array, token: jax.Array, place: jax.Array) -> jax.Array:
    """Put [batch, 1, kv_heads, head_dim] at a place of a cache."""
    token = token.reshape(token.shape[0], 1, -1).astype(kept.dtype)
    return jax.lax.dynamic_update_slice_in_dim(kept, token, place, axis=1)
