"""The layers of a backbone, connected from token ids to hidden states.

Turns a `GemmaConfig` of any architecture into the parts of a Functional model. It
refuses to know constructors and files (`Backbone`) and how its layers compute
(`gemma.layers`).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import keras

from gemma.config import Architecture, GemmaConfig
from gemma.layers.decoder_block import Gemma3DecoderBlock, GemmaDecoderBlock
from gemma.layers.rms_normalization import RMSNormalization
from gemma.layers.token_embedding import ReversibleEmbedding
from gemma.layout import teach_layout_map

DType = str | keras.DTypePolicy | None
"""Name of a dtype or policy, or a policy; None is Keras's global one."""

_BLOCKS: dict[Architecture, type[GemmaDecoderBlock]] = {
    "gemma": GemmaDecoderBlock,
    "gemma3": Gemma3DecoderBlock,
}


class EmbeddingScale(keras.layers.Layer):
    """Multiply embeddings by the square root of their dim, in the compute dtype."""

    def call(self, x: jax.Array) -> jax.Array:
        """Scale x [batch, seq, hidden]."""
        return x * jnp.asarray(x.shape[-1] ** 0.5, x.dtype)


def build_layers(config: GemmaConfig, dtype: DType) -> dict[str, Any]:
    """Return inputs, outputs, embedding and blocks, as `Backbone` takes them.

    A layout map of ours, under which they are built, learns the dimensions first.
    """
    teach_layout_map(config)
    embedding = ReversibleEmbedding(
        config.vocabulary_size,
        config.hidden_dim,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=0.02),
        logit_soft_cap=config.final_logit_soft_cap,
        dtype=dtype,
        name="token_embedding",
    )
    block_class = _BLOCKS[config.architecture]
    blocks = [
        block_class(
            config,
            config.attention_kind(layer),
            dtype=dtype,
            name=f"decoder_block_{layer}",
        )
        for layer in range(config.num_layers)
    ]
    norm = RMSNormalization(
        config.layer_norm_epsilon, dtype=dtype, name="final_normalization"
    )
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    padding_mask = keras.Input((None,), dtype="int32", name="padding_mask")
    x = EmbeddingScale(dtype=dtype, name="embedding_scale")(embedding(token_ids))
    for block in blocks:
        x = block(x, padding_mask=padding_mask)
    return {
        "inputs": {"token_ids": token_ids, "padding_mask": padding_mask},
        "outputs": norm(x),
        "config": config,
        "embedding": embedding,
        "blocks": blocks,
    }
