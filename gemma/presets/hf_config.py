"""Hugging Face's `config.json` of Gemma's text models, read as a `GemmaConfig`.

Turns transformers' names into ours, older and newer spellings alike; of a multimodal
Gemma 3 it takes the text model. It refuses by name every setting that our model does
not compute; it knows nothing of weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epath

from gemma.config import Gemma3Config, GemmaConfig
from gemma.presets.dimensions import MAX_LAYERS, checked_config
from gemma.presets.hf_fields import integer, number, refuse, soft_cap
from gemma.presets.hf_rope import check_plain_rope, rope_factors

MODEL_TYPES = ("gemma", "gemma2", "gemma3_text", "gemma3")

NAMES = {
    "vocabulary_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "num_query_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "hidden_dim": "hidden_size",
    "head_dim": "head_dim",
}
"""Our name of a dimension -> transformers'."""

_DTYPES = {"float32": "float32", "bfloat16": "bfloat16", "float16": "float32"}

_GEMMA3_DEFAULTS = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 4096,
}
"""What transformers takes where a text config of Gemma 3 has no such key."""


def read_hf_config(
    path: epath.Path, values: Mapping[str, Any]
) -> tuple[GemmaConfig, str]:
    """Return the dimensions and the dtype that a Hugging Face `config.json` states.

    Raises:
        PresetFileError: Another architecture, or a setting that is not computed here.
    """
    model_type = values.get("model_type")
    if model_type not in MODEL_TYPES:
        refuse(path, "model_type", " or ".join(MODEL_TYPES), model_type)
    if model_type == "gemma3":
        values, model_type = _text_model(path, values), "gemma3_text"
    if model_type == "gemma3_text":
        values = _GEMMA3_DEFAULTS | dict(values)
    _check_fixed(path, values, model_type)
    dims = {ours: integer(path, values, theirs) for ours, theirs in NAMES.items()}
    extra: dict[str, Any] = {
        "intermediate_dim": integer(path, values, "intermediate_size"),
        "layer_norm_epsilon": number(path, values, "rms_norm_eps", 1e-6),
    }
    if model_type == "gemma3_text":
        extra |= _gemma3(path, values, dims)
    else:
        check_plain_rope(path, values)
        extra["intermediate_dim"] *= 2  # the gate and the linear branch together
    if model_type == "gemma2":
        extra |= _gemma2(path, values, dims)
    kind = Gemma3Config if model_type == "gemma3_text" else GemmaConfig
    return checked_config(path, kind, {**dims, **extra}), _dtype(path, values)


def _text_model(path: epath.Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the text model's part of a multimodal config."""
    text = values.get("text_config")
    if not isinstance(text, dict):
        refuse(path, "text_config", "an object", text)
    shared = ("dtype", "torch_dtype", "quantization_config", "tie_word_embeddings")
    return {key: values[key] for key in shared if key in values} | text


def _dtype(path: epath.Path, values: Mapping[str, Any]) -> str:
    dtype = values.get("dtype") or values.get("torch_dtype") or "float32"
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        refuse(path, "dtype", " or ".join(_DTYPES), dtype)
    return _DTYPES[dtype]


def _check_fixed(path: epath.Path, values: Mapping[str, Any], model_type: str) -> None:
    """Refuse the settings that only one value of is computed here."""
    only: dict[str, tuple[Any, ...]] = {
        "attention_bias": (False, None),
        "attention_dropout": (0, None),
        "tie_word_embeddings": (True, None),
        "use_bidirectional_attention": (False, None),
        "quantization_config": (None,),
        "hidden_activation": ("gelu_pytorch_tanh", None),
        # The first files of Gemma 1 say `gelu` and mean the tanh approximation.
        "hidden_act": ("gelu_pytorch_tanh", "gelu", None),
    }
    if model_type == "gemma":
        only |= dict.fromkeys(
            ("query_pre_attn_scalar", "sliding_window", "layer_types"), (None,)
        )
        only |= dict.fromkeys(
            ("attn_logit_softcapping", "final_logit_softcapping"), (None,)
        )
    for key, allowed in only.items():
        if values.get(key) not in allowed:
            expected = " or ".join(repr(value) for value in allowed)
            refuse(path, key, expected, values[key])


def _gemma2(
    path: epath.Path, values: Mapping[str, Any], dims: Mapping[str, int]
) -> dict[str, Any]:
    """Return the switches of Gemma 2."""
    return {
        **_query_scale(path, values, dims),
        "use_post_ffw_norm": True,
        "use_post_attention_norm": True,
        "attention_logit_soft_cap": soft_cap(
            path, values, "attn_logit_softcapping", 50.0
        ),
        "final_logit_soft_cap": soft_cap(path, values, "final_logit_softcapping", 30.0),
        **_windows(path, values, dims["num_layers"], period=2),
    }


def _gemma3(
    path: epath.Path, values: Mapping[str, Any], dims: Mapping[str, int]
) -> dict[str, Any]:
    """Return the switches of Gemma 3."""
    return {
        **_query_scale(path, values, dims),
        "use_query_key_norm": True,
        "use_post_ffw_norm": True,
        "use_post_attention_norm": True,
        "attention_logit_soft_cap": soft_cap(
            path, values, "attn_logit_softcapping", None
        ),
        "final_logit_soft_cap": soft_cap(path, values, "final_logit_softcapping", None),
        **_windows(path, values, dims["num_layers"], period=6),
        **rope_factors(path, values),
    }


def _query_scale(
    path: epath.Path, values: Mapping[str, Any], dims: Mapping[str, int]
) -> dict[str, Any]:
    """Return the scale of the query, by KerasHub's switch where that can say it."""
    scalar = number(path, values, "query_pre_attn_scalar", 256)
    if scalar == dims["head_dim"]:
        return {"query_head_dim_normalize": True}
    if scalar == dims["hidden_dim"] // max(1, dims["num_query_heads"]):
        return {"query_head_dim_normalize": False}
    return {"query_pre_attn_scalar": scalar}


def layer_types(config: GemmaConfig) -> list[str]:
    """Return the kinds of the layers as transformers calls them."""
    names = {"local": "sliding_attention", "global": "full_attention"}
    return [names[config.attention_kind(i)] for i in range(config.num_layers)]


def _windows(
    path: epath.Path, values: Mapping[str, Any], num_layers: int, *, period: int
) -> dict[str, Any]:
    """Return which layers are local, and how far they see."""
    if not _has_windows(path, values, num_layers, period=period):
        return {"use_sliding_window_attention": False}
    window = integer(path, values, "sliding_window")
    return {"use_sliding_window_attention": True, "sliding_window_size": window}


def _has_windows(
    path: epath.Path, values: Mapping[str, Any], num_layers: int, *, period: int
) -> bool:
    """Return whether all layers but each `period`-th are local; else none is."""
    given = values.get("layer_types")
    if given is None:
        written = values.get("sliding_window_pattern", period)
        if written not in (1, period):
            refuse(path, "sliding_window_pattern", f"{period} or 1", written)
        return written == period
    expected = [
        "sliding_attention" if (layer + 1) % period else "full_attention"
        for layer in range(min(num_layers, MAX_LAYERS))
    ]
    if given == expected:
        return True
    if given != ["full_attention"] * len(expected):
        pattern = f"sliding_attention, but full_attention for layers {period}n"
        refuse(path, "layer_types", pattern, given)
    return False
