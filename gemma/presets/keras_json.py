"""The JSON objects by which KerasHub describes a Gemma model.

Turns a config into what `config.json`, `tokenizer.json`, `preprocessor.json` and
`task.json` hold. It refuses to know files, and serializes no live object: the classes
are these four.
"""

from __future__ import annotations

from typing import Any

from gemma.config import GemmaConfig

_MODELS = "keras_hub.src.models.gemma"


def backbone(config: GemmaConfig, dtype: str) -> dict[str, Any]:
    """Return the object of `config.json`."""
    dropout = config.dropout
    return _object(
        "gemma_backbone",
        "GemmaBackbone",
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


def tokenizer() -> dict[str, Any]:
    """Return the object of `tokenizer.json`; the vocabulary is a file beside it."""
    return _object(
        "gemma_tokenizer",
        "GemmaTokenizer",
        "int32",
        {
            "config_file": "tokenizer.json",
            "proto": None,
            "sequence_length": None,
            "add_bos": False,
            "add_eos": False,
        },
    )


def preprocessor(sequence_length: int) -> dict[str, Any]:
    """Return the object of `preprocessor.json`."""
    return _object(
        "gemma_causal_lm_preprocessor",
        "GemmaCausalLMPreprocessor",
        "float32",
        {
            "tokenizer": tokenizer(),
            "config_file": "preprocessor.json",
            "sequence_length": sequence_length,
            "add_start_token": True,
            "add_end_token": True,
        },
    )


def task(backbone: dict[str, Any], sequence_length: int) -> dict[str, Any]:
    """Return the object of `task.json`."""
    return {
        "module": f"{_MODELS}.gemma_causal_lm",
        "class_name": "GemmaCausalLM",
        "config": {
            "backbone": backbone,
            "preprocessor": preprocessor(sequence_length),
            "name": "gemma_causal_lm",
        },
        "registered_name": "keras_hub>GemmaCausalLM",
    }


def _object(
    name: str, class_name: str, dtype: str, values: dict[str, Any]
) -> dict[str, Any]:
    """Return a serialized layer: where its class lives, and its arguments."""
    policy = {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": dtype},
        "registered_name": None,
    }
    return {
        "module": f"{_MODELS}.{name}",
        "class_name": class_name,
        "config": {"name": name, "trainable": True, "dtype": policy, **values},
        "registered_name": f"keras_hub>{class_name}",
    }
