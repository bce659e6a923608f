"""The JSON objects by which KerasHub describes a Gemma model.

Turns a config into what `config.json`, `tokenizer.json`, `preprocessor.json` and
`task.json` hold. It refuses to know files, and serializes no live object: the classes
are these four of each architecture.

Source: files written by KerasHub 0.32.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gemma.config import TEXT_ONLY, Architecture, Gemma3Config, GemmaConfig

_MODELS = "keras_hub.src.models"
_CLASSES: dict[Architecture, str] = {"gemma": "Gemma", "gemma3": "Gemma3"}


def backbone(config: GemmaConfig, dtype: str) -> dict[str, Any]:
    """Return the object of `config.json`."""
    if isinstance(config, Gemma3Config):
        return _gemma3_backbone(config, dtype)
    dropout = config.dropout
    return _object(
        config.architecture,
        "backbone",
        dtype,
        {
            "vocabulary_size": config.vocabulary_size,
            "num_layers": config.num_layers,
            "num_query_heads": config.num_query_heads,
            "num_key_value_heads": config.num_key_value_heads,
            "hidden_dim": config.hidden_dim,
            "intermediate_dim": config.intermediate_dim,
            "head_dim": config.head_dim,
            "layer_norm_epsilon": config.layer_norm_epsilon,
            "dropout": dropout if dropout else 0,
            "query_head_dim_normalize": config.query_head_dim_normalize,
            "use_post_ffw_norm": config.use_post_ffw_norm,
            "use_post_attention_norm": config.use_post_attention_norm,
            "final_logit_soft_cap": config.final_logit_soft_cap,
            "attention_logit_soft_cap": config.attention_logit_soft_cap,
            "sliding_window_size": config.sliding_window_size,
            "use_sliding_window_attention": config.use_sliding_window_attention,
        },
    )


def _gemma3_backbone(config: Gemma3Config, dtype: str) -> dict[str, Any]:
    dropout = config.dropout
    return _object(
        config.architecture,
        "backbone",
        dtype,
        {
            "vocabulary_size": config.vocabulary_size,
            "image_size": TEXT_ONLY["image_size"],
            "num_layers": config.num_layers,
            "num_query_heads": config.num_query_heads,
            "num_key_value_heads": config.num_key_value_heads,
            "hidden_dim": config.hidden_dim,
            "intermediate_dim": config.intermediate_dim,
            "head_dim": config.head_dim,
            "query_head_dim_normalize": config.query_head_dim_normalize,
            "use_query_key_norm": config.use_query_key_norm,
            "use_post_ffw_norm": config.use_post_ffw_norm,
            "use_post_attention_norm": config.use_post_attention_norm,
            "attention_logit_soft_cap": config.attention_logit_soft_cap,
            "final_logit_soft_cap": config.final_logit_soft_cap,
            "use_sliding_window_attention": config.use_sliding_window_attention,
            "sliding_window_size": config.sliding_window_size,
            "local_rope_scaling_factor": config.local_rope_scaling_factor,
            "global_rope_scaling_factor": config.global_rope_scaling_factor,
            "vision_encoder": TEXT_ONLY["vision_encoder"],
            "use_bidirectional_attention": TEXT_ONLY["use_bidirectional_attention"],
            "layer_norm_epsilon": config.layer_norm_epsilon,
            "dropout": dropout if dropout else 0,
            "is_embedding_model": TEXT_ONLY["is_embedding_model"],
            "pooling_intermediate_dim": TEXT_ONLY["pooling_intermediate_dim"],
            "embedding_dim": TEXT_ONLY["embedding_dim"],
        },
    )


def tokenizer(architecture: Architecture) -> dict[str, Any]:
    """Return the object of `tokenizer.json`; the vocabulary is a file beside it."""
    values: dict[str, Any] = {
        "config_file": "tokenizer.json",
        "proto": None,
        "sequence_length": None,
        "add_bos": False,
        "add_eos": False,
    }
    if architecture == "gemma3":
        values["has_vision_tokens"] = False
    return _object(architecture, "tokenizer", "int32", values)


def preprocessor(
    architecture: Architecture, sequences: Mapping[str, int | bool]
) -> dict[str, Any]:
    """Return the object of `preprocessor.json`.

    Args:
        architecture: Of the model.
        sequences: `sequence_length`, `add_start_token` and `add_end_token`.
    """
    values: dict[str, Any] = {
        "tokenizer": tokenizer(architecture),
        "config_file": "preprocessor.json",
        **sequences,
    }
    if architecture == "gemma3":
        values |= {"num_vision_tokens_per_image": 256, "max_images_per_prompt": 2}
    return _object(architecture, "causal_lm_preprocessor", "float32", values)


def task(
    architecture: Architecture,
    backbone: dict[str, Any],
    sequences: Mapping[str, int | bool],
) -> dict[str, Any]:
    """Return the object of `task.json`; `sequences` are the preprocessor's."""
    class_name = f"{_CLASSES[architecture]}CausalLM"
    return {
        "module": f"{_MODELS}.{architecture}.{architecture}_causal_lm",
        "class_name": class_name,
        "config": {
            "backbone": backbone,
            "preprocessor": preprocessor(architecture, sequences),
            "name": f"{architecture}_causal_lm",
        },
        "registered_name": f"keras_hub>{class_name}",
    }


_ROLES = {
    "backbone": "Backbone",
    "tokenizer": "Tokenizer",
    "causal_lm_preprocessor": "CausalLMPreprocessor",
}
"""Last part of a layer's name -> last part of its class's."""


def _object(
    architecture: Architecture, role: str, dtype: str, values: dict[str, Any]
) -> dict[str, Any]:
    """Return a serialized layer: where its class lives, and its arguments."""
    policy = {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": dtype},
        "registered_name": None,
    }
    name, class_name = f"{architecture}_{role}", _CLASSES[architecture] + _ROLES[role]
    return {
        "module": f"{_MODELS}.{architecture}.{name}",
        "class_name": class_name,
        "config": {"name": name, "trainable": True, "dtype": policy, **values},
        "registered_name": f"keras_hub>{class_name}",
    }
