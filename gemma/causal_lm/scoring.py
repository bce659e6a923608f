"""Logits or losses of given tokens, with a look into every layer.

Turns token ids into scores on the Keras model's own layers, in the open: whoever passes
a function sees and may change what goes from layer to layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gemma.backbones.backbone import Backbone


def score(
    backbone: Backbone,
    token_ids: Any,  # noqa: ANN401  # whatever becomes an array
    *,
    padding_mask: Any,  # noqa: ANN401
    scoring_mode: str,
    layer_intercept_fn: Callable[[jax.Array, int], jax.Array] | None,
    target_ids: Any,  # noqa: ANN401
) -> jax.Array:
    """Return scores of every position; see `CausalLM.score`."""
    if scoring_mode not in ("logits", "loss"):
        raise ValueError(
            f"scoring_mode must be 'logits' or 'loss', received {scoring_mode!r}"
        )
    if scoring_mode == "loss" and target_ids is None:
        raise ValueError("scoring_mode='loss' needs target_ids, received None")
    intercept = layer_intercept_fn or _unchanged
    token_ids = jnp.asarray(token_ids, "int32")
    if padding_mask is None:
        padding_mask = jnp.ones_like(token_ids)
    x = intercept(backbone.token_embedding(token_ids), -1)
    x = backbone.get_layer("embedding_scale")(x)
    for index, block in enumerate(backbone.blocks):
        x = intercept(block(x, padding_mask=jnp.asarray(padding_mask)), index)
    x = backbone.get_layer("final_normalization")(x)
    logits = backbone.token_embedding(x, reverse=True)
    if scoring_mode == "logits":
        return logits
    targets = jnp.asarray(target_ids, "int32")[..., None]
    likely = jnp.take_along_axis(logits, targets, axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - likely


def _unchanged(x: jax.Array, layer: int) -> jax.Array:
    return x
