"""`Gemma3Backbone`: Gemma 3's text model as a Keras model.

Turns KerasHub's constructor arguments into a Functional model. It refuses images and
embedding models by name, and knows no files and layouts (`Backbone`).
"""

from __future__ import annotations

import keras

from gemma.backbones.assembly import DType, build_layers
from gemma.backbones.backbone import Backbone
from gemma.config import TEXT_ONLY, Gemma3Config


@keras.saving.register_keras_serializable("gemma")
class Gemma3Backbone(Backbone):
    """Gemma 3 up to its hidden states; the head is the embedding, used in reverse.

    A Functional model from `{"token_ids", "padding_mask"}`, each int32 [batch, seq],
    to hidden states [batch, seq, hidden_dim]. Queries and keys are normalised, five
    local layers precede each global one, and the two kinds rotate with wavelengths
    up to 10,000 and 1,000,000.

    Args:
        vocabulary_size: Rows of the embedding.
        image_size: Kept by KerasHub's text presets too; nothing reads it.
        num_layers: Decoder blocks.
        num_query_heads: Heads of the queries.
        num_key_value_heads: Heads of keys and values; divides `num_query_heads`.
        hidden_dim: Width of the residual stream.
        intermediate_dim: The feed-forward width; once, unlike `GemmaBackbone`'s.
        head_dim: Width of a head.
        query_head_dim_normalize: Scale queries by head_dim ** -0.5; false:
            by (hidden_dim / num_query_heads) ** -0.5, as Gemma 3 27B.
        use_query_key_norm: Normalise every head of queries and keys.
        use_post_ffw_norm: Normalise the feed-forward's output too.
        use_post_attention_norm: Normalise the attention's output too.
        attention_logit_soft_cap: Bound of attention scores.
        final_logit_soft_cap: Bound of the logits.
        use_sliding_window_attention: Five of six layers see `sliding_window_size`
            tokens; false: every layer is global.
        sliding_window_size: Tokens that a local layer sees, its own included.
        local_rope_scaling_factor: Divides the positions of local layers.
        global_rope_scaling_factor: Divides the positions of global layers; 8 for
            4B and larger.
        vision_encoder: None; this is the text model.
        layer_norm_epsilon: Added to the mean square in every norm.
        use_bidirectional_attention: False; embedding models have it.
        dropout: After attention and feed-forward, while training.
        is_embedding_model: False.
        pooling_intermediate_dim: None; of embedding models.
        embedding_dim: None; of embedding models.
        dtype: Keras dtype or policy of weights and computation; norms, softmax and
            logits are float32 always.
        query_pre_attn_scalar: Scale queries by its inverse square root instead; for
            models whose scale is neither of the two. KerasHub has no such argument.

    Raises:
        ValueError: A dimension is impossible, or the arguments describe a model of
            images or embeddings; the message names the argument.
    """

    config_class = Gemma3Config

    def __init__(
        self,
        vocabulary_size: int,
        image_size: int | None,
        num_layers: int,
        num_query_heads: int,
        num_key_value_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        head_dim: int,
        query_head_dim_normalize: bool = True,
        use_query_key_norm: bool = True,
        use_post_ffw_norm: bool = False,
        use_post_attention_norm: bool = False,
        attention_logit_soft_cap: float | None = None,
        final_logit_soft_cap: float | None = None,
        use_sliding_window_attention: bool = False,
        sliding_window_size: int = 1024,
        local_rope_scaling_factor: float = 1.0,
        global_rope_scaling_factor: float = 1.0,
        vision_encoder: None = None,
        layer_norm_epsilon: float = 1e-6,
        use_bidirectional_attention: bool = False,
        dropout: float = 0,
        is_embedding_model: bool = False,
        pooling_intermediate_dim: None = None,
        embedding_dim: None = None,
        dtype: DType = None,
        query_pre_attn_scalar: float | None = None,
        **kwargs: object,
    ) -> None:
        _check_text_only(
            vision_encoder=vision_encoder,
            use_bidirectional_attention=use_bidirectional_attention,
            is_embedding_model=is_embedding_model,
            pooling_intermediate_dim=pooling_intermediate_dim,
            embedding_dim=embedding_dim,
        )
        config = Gemma3Config(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            num_query_heads=num_query_heads,
            num_key_value_heads=num_key_value_heads,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            head_dim=head_dim,
            query_head_dim_normalize=query_head_dim_normalize,
            use_query_key_norm=use_query_key_norm,
            use_post_ffw_norm=use_post_ffw_norm,
            use_post_attention_norm=use_post_attention_norm,
            attention_logit_soft_cap=attention_logit_soft_cap,
            final_logit_soft_cap=final_logit_soft_cap,
            use_sliding_window_attention=use_sliding_window_attention,
            sliding_window_size=sliding_window_size,
            local_rope_scaling_factor=local_rope_scaling_factor,
            global_rope_scaling_factor=global_rope_scaling_factor,
            layer_norm_epsilon=layer_norm_epsilon,
            dropout=dropout,
            query_pre_attn_scalar=query_pre_attn_scalar,
        )
        super().__init__(**build_layers(config, dtype), dtype=dtype, **kwargs)


def _check_text_only(**arguments: object) -> None:
    for name, value in arguments.items():
        if value != TEXT_ONLY[name]:
            raise ValueError(
                f"{name} must be {TEXT_ONLY[name]!r}, received {value!r}: "
                "Gemma3Backbone computes the causal text model; models of images "
                "and embeddings are not built here"
            )
