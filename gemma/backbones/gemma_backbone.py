"""`GemmaBackbone`: Gemma 1, CodeGemma, Gemma 2 and ShieldGemma as a Keras model.

Turns KerasHub's constructor arguments into a Functional model. It refuses to know files
and layouts (`Backbone`) and how its layers compute (`gemma.layers`).
"""

from __future__ import annotations

import keras

from gemma.backbones.assembly import DType, build_layers
from gemma.backbones.backbone import Backbone
from gemma.config import GemmaConfig


@keras.saving.register_keras_serializable("gemma")
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
        query_pre_attn_scalar: Scale queries by its inverse square root instead; for
            models whose scale is neither of the two. KerasHub has no such argument.

    Raises:
        ValueError: A dimension is impossible; the message names the argument.

    Example:
        backbone = GemmaBackbone(
            vocabulary_size=256, num_layers=2, num_query_heads=4,
            num_key_value_heads=2, hidden_dim=32, intermediate_dim=128, head_dim=8,
        )
        backbone({"token_ids": ids, "padding_mask": mask})
    """

    config_class = GemmaConfig

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
        query_pre_attn_scalar: float | None = None,
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
            query_pre_attn_scalar=query_pre_attn_scalar,
        )
        super().__init__(**build_layers(config, dtype), dtype=dtype, **kwargs)
