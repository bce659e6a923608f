"""`GemmaBackbone`: Gemma 1, CodeGemma, Gemma 2 and ShieldGemma as a Keras model.

Turns KerasHub's constructor arguments into a Functional model and a layout. It refuses
to know files (`Backbone`) and how its layers compute (`gemma.layers`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import keras

from gemma.backbones.backbone import Backbone, DType
from gemma.config import GemmaConfig
from gemma.layers.decoder_block import GemmaDecoderBlock
from gemma.layers.rms_normalization import RMSNormalization
from gemma.layers.token_embedding import ReversibleEmbedding
from gemma.layout import LearningLayoutMap, gemma_layout_map


class EmbeddingScale(keras.layers.Layer):
    """Multiply embeddings by the square root of their dim, in the compute dtype."""

    def call(self, x: jax.Array) -> jax.Array:
        """Scale x [batch, seq, hidden]."""
        return x * jnp.asarray(x.shape[-1] ** 0.5, x.dtype)


class GemmaBackbone(Backbone):
    """Gemma up to its hidden states; the head is the embedding, used in reverse.

    A Functional model from `{"token_ids", "padding_mask"}`, each int32 [batch, seq],
    to hidden states [batch, seq, hidden_dim].

    Args:
        vocabulary_size: Rows of the embedding.
        num_layers: Decoder blocks.
        num_query_heads: Heads of the queries.
        num_key_value_heads: Heads of keys and values; divides `num_query_heads`.
        hidden_dim: Width of the residual stream.
        intermediate_dim: Twice the feed-forward width.
        head_dim: Width of a head.
        query_head_dim_normalize: Scale queries by head_dim ** -0.5; false:
            by (hidden_dim / num_query_heads) ** -0.5, as Gemma 2 27B.
        use_post_ffw_norm: Normalise the feed-forward's output too.
        use_post_attention_norm: Normalise the attention's output too.
        attention_logit_soft_cap: Bound of attention scores.
        final_logit_soft_cap: Bound of the logits.
        use_sliding_window_attention: Every second layer, the first included, sees
            `sliding_window_size` tokens.
        sliding_window_size: Tokens that a local layer sees, its own included.
        layer_norm_epsilon: Added to the mean square in every norm.
        dropout: After attention and feed-forward, while training.
        dtype: Keras dtype or policy of weights and computation; norms, softmax and
            logits are float32 always.

    Raises:
        ValueError: A dimension is impossible; the message names the argument.

    Example:
        backbone = GemmaBackbone(
            vocabulary_size=256, num_layers=2, num_query_heads=4,
            num_key_value_heads=2, hidden_dim=32, intermediate_dim=128, head_dim=8,
        )
        backbone({"token_ids": ids, "padding_mask": mask})
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int,
        num_query_heads: int,
        num_key_value_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        head_dim: int,
        query_head_dim_normalize: bool = True,
        use_post_ffw_norm: bool = False,
        use_post_attention_norm: bool = False,
        attention_logit_soft_cap: float | None = None,
        final_logit_soft_cap: float | None = None,
        use_sliding_window_attention: bool = False,
        sliding_window_size: int = 4096,
        layer_norm_epsilon: float = 1e-6,
        dropout: float = 0,
        dtype: DType = None,
        **kwargs: object,
    ) -> None:
        config = GemmaConfig(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            num_query_heads=num_query_heads,
            num_key_value_heads=num_key_value_heads,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            head_dim=head_dim,
            query_head_dim_normalize=query_head_dim_normalize,
            use_post_ffw_norm=use_post_ffw_norm,
            use_post_attention_norm=use_post_attention_norm,
            attention_logit_soft_cap=attention_logit_soft_cap,
            final_logit_soft_cap=final_logit_soft_cap,
            use_sliding_window_attention=use_sliding_window_attention,
            sliding_window_size=sliding_window_size,
            layer_norm_epsilon=layer_norm_epsilon,
            dropout=dropout,
        )
        _teach_layout_map(config)
        super().__init__(**_build_layers(config, dtype), dtype=dtype, **kwargs)

    @classmethod
    def get_layout_map(
        cls,
        device_mesh: keras.distribution.DeviceMesh,
        model_parallel_dim_name: str = "model",
        data_parallel_dim_name: str = "batch",
        *,
        config: GemmaConfig | None = None,
    ) -> keras.distribution.LayoutMap:
        """Return the layout of every variable on `device_mesh`.

        Args:
            device_mesh: Mesh to lay out on.
            model_parallel_dim_name: Axis that splits heads, vocabulary and
                feed-forward.
            data_parallel_dim_name: Axis that splits the batch, and the other large
                dim of every weight.
            config: Dimensions to fit the splits to. Without it the map learns them
                from the backbone that is built under it.

        Raises:
            ValueError: `device_mesh` is no mesh, or lacks one of the two axes.
        """
        return gemma_layout_map(
            device_mesh, model_parallel_dim_name, data_parallel_dim_name, config=config
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, in the order of KerasHub's files."""
        config = super().get_config()
        return {**config, **dataclasses.asdict(self.gemma_config)}


def _build_layers(config: GemmaConfig, dtype: DType) -> dict[str, Any]:
    """Return the layers, connected from inputs to outputs, as `Backbone` takes them."""
    embedding = ReversibleEmbedding(
        config.vocabulary_size,
        config.hidden_dim,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=0.02),
        logit_soft_cap=config.final_logit_soft_cap,
        dtype=dtype,
        name="token_embedding",
    )
    blocks = [
        GemmaDecoderBlock(
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


def _teach_layout_map(config: GemmaConfig) -> None:
    """Tell the dimensions to our layout map, if the model is built under one."""
    distribution = keras.distribution.distribution()
    if isinstance(distribution, keras.distribution.ModelParallel):
        layout_map = distribution._layout_map  # Keras 3.15 shows it in no other way
        if isinstance(layout_map, LearningLayoutMap):
            layout_map.learn(config)
