"""Hugging Face's `config.json` of Gemma 1 and 2, read as a `GemmaConfig`.

Turns transformers' names into ours, older and newer spellings alike. It refuses by
name every setting that our model does not compute; it knows nothing of weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epath

from gemma.config import GemmaConfig
from gemma.presets.errors import PresetFileError

ARCHITECTURES = ("gemma", "gemma2")

_NAMES = {
    "vocabulary_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "num_query_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "hidden_dim": "hidden_size",
    "head_dim": "head_dim",
}
_DTYPES = {"float32": "float32", "bfloat16": "bfloat16", "float16": "float32"}
_ROPE_THETA = 10_000.0

_USE_OTHER = "use a model whose config.json has it so"


def read_hf_config(
    path: epath.Path, values: Mapping[str, Any]
) -> tuple[GemmaConfig, str]:
    """Return the dimensions and the dtype that a Hugging Face `config.json` states.

    Raises:
        PresetFileError: Another architecture, or a setting that is not computed here.
    """
    model_type = values.get("model_type")
    if model_type not in ARCHITECTURES:
        _refuse(path, "model_type", " or ".join(ARCHITECTURES), model_type)
    _check_fixed(path, values, model_type)
    _check_rope(path, values)
    dtype = values.get("dtype") or values.get("torch_dtype") or "float32"
    if dtype not in _DTYPES:
        _refuse(path, "dtype", " or ".join(_DTYPES), dtype)
    dims = {ours: _integer(path, values, theirs) for ours, theirs in _NAMES.items()}
    dims["intermediate_dim"] = 2 * _integer(path, values, "intermediate_size")
    extra: dict[str, Any] = {
        "layer_norm_epsilon": _number(path, values, "rms_norm_eps", 1e-6)
    }
    if model_type == "gemma2":
        extra |= _gemma2(path, values, dims)
    try:
        return GemmaConfig(**dims, **extra), _DTYPES[dtype]
    except ValueError as error:
        raise PresetFileError(
            path,
            expected="dimensions of a Gemma model",
            received=f"others ({error})",
            fix="fetch the file again from where it was published",
        ) from error


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
            _refuse(path, key, expected, values[key])


def _check_rope(path: epath.Path, values: Mapping[str, Any]) -> None:
    """Refuse other rotary positions; transformers 5 nests what 4 had at the top."""
    if values.get("rope_scaling") is not None:
        _refuse(path, "rope_scaling", "null", values["rope_scaling"])
    nested = values.get("rope_parameters") or {}
    if not isinstance(nested, dict):
        _refuse(path, "rope_parameters", "an object", nested)
    if nested.get("rope_type", "default") != "default":
        _refuse(path, "rope_parameters.rope_type", "'default'", nested["rope_type"])
    if unknown := sorted(nested.keys() - {"rope_theta", "rope_type"}):
        _refuse(path, "rope_parameters", "rope_theta and rope_type", unknown)
    for key, holder in (("rope_theta", values), ("rope_parameters.rope_theta", nested)):
        theta = holder.get("rope_theta", _ROPE_THETA)
        if theta != _ROPE_THETA:
            _refuse(path, key, str(_ROPE_THETA), theta)


def _gemma2(
    path: epath.Path, values: Mapping[str, Any], dims: Mapping[str, int]
) -> dict[str, Any]:
    """Return the switches of Gemma 2."""
    layers, scalar = dims["num_layers"], values.get("query_pre_attn_scalar", 256)
    per_head = dims["hidden_dim"] // dims["num_query_heads"]
    if scalar not in (dims["head_dim"], per_head):
        _refuse(
            path,
            "query_pre_attn_scalar",
            f"head_dim ({dims['head_dim']}) or hidden_size / heads ({per_head})",
            scalar,
        )
    alternating = [
        "full_attention" if layer % 2 else "sliding_attention"
        for layer in range(layers)
    ]
    if (values.get("layer_types") or alternating) != alternating:
        _refuse(path, "layer_types", "sliding and full in turn", values["layer_types"])
    return {
        "query_head_dim_normalize": scalar == dims["head_dim"],
        "use_post_ffw_norm": True,
        "use_post_attention_norm": True,
        "attention_logit_soft_cap": _cap(path, values, "attn_logit_softcapping", 50.0),
        "final_logit_soft_cap": _cap(path, values, "final_logit_softcapping", 30.0),
        "use_sliding_window_attention": True,
        "sliding_window_size": _integer(path, values, "sliding_window"),
    }


def _integer(path: epath.Path, values: Mapping[str, Any], key: str) -> int:
    value = values.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        _refuse(path, key, "an integer", value)
    return value


def _cap(
    path: epath.Path, values: Mapping[str, Any], key: str, default: float
) -> float | None:
    """Return a soft cap: null switches it off, an absent key means the default."""
    if key in values and values[key] is None:
        return None
    return _number(path, values, key, default)


def _number(
    path: epath.Path, values: Mapping[str, Any], key: str, default: float
) -> float:
    value = values.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        _refuse(path, key, "a number", value)
    return float(value)


def _refuse(path: epath.Path, key: str, expected: str, received: object) -> None:
    raise PresetFileError(
        f"{path}, {key}", expected=expected, received=repr(received), fix=_USE_OTHER
    )
