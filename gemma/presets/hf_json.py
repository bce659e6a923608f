"""The JSON objects by which transformers describes a Gemma text model.

Turns a config into what `config.json`, `generation_config.json` and
`tokenizer_config.json` hold, RoPE in the spellings of transformers 4 and 5. It refuses
models that no architecture of transformers computes, and knows no files.
"""

from __future__ import annotations

from typing import Any

from gemma.config import Gemma3Config, GemmaConfig
from gemma.presets.hf_config import NAMES, layer_types
from gemma.presets.hf_rope import GLOBAL_BASE, LOCAL_BASE, rope_parameters
from gemma.tokenizers import BOS, END_OF_TURN, EOS, PAD, START_OF_TURN, UNKNOWN

_CLASSES = {
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
_INITIAL_DEVIATION = 0.02

# Turns as `gemma.chat` writes them; a system message opens the first user turn.
_CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% set opening = '' %}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set opening = messages[0]['content'] | trim + '\\n\\n' %}"
    "{% set messages = messages[1:] %}"
    "{% endif %}"
    "{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{% if role != ('model' if loop.index0 % 2 else 'user') %}"
    "{{ raise_exception('user and model must take turns, the user first') }}"
    "{% endif %}"
    "{{ '<start_of_turn>' + role + '\\n' + (opening if loop.first else '') }}"
    "{{ message['content'] | trim + '<end_of_turn>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


def model_type(config: GemmaConfig) -> str:
    """Return the `model_type` of the architecture that computes `config`.

    Raises:
        ValueError: None does; names the argument and the value that it needs.
    """
    if isinstance(config, Gemma3Config):
        kind = "gemma3_text"
        needed: dict[str, object] = {
            "use_query_key_norm": True,
            "use_post_ffw_norm": True,
            "use_post_attention_norm": True,
        }
    elif config.use_post_ffw_norm or config.use_post_attention_norm:
        kind = "gemma2"
        needed = {"use_post_ffw_norm": True, "use_post_attention_norm": True}
    else:
        kind = "gemma"
        needed = {
            "query_head_dim_normalize": True,
            "query_pre_attn_scalar": None,
            "attention_logit_soft_cap": None,
            "final_logit_soft_cap": None,
            "use_sliding_window_attention": False,
        }
    for name, value in needed.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"{name} must be {value} for transformers' {kind}, "
                f"received {getattr(config, name)}; save it as a KerasHub preset"
            )
    return kind


def model_config(config: GemmaConfig, dtype: str, ids: dict[str, int]) -> dict:
    """Return the object of `config.json`.

    Args:
        config: Dimensions.
        dtype: Of the tensors.
        ids: Of `bos_token_id`, `eos_token_id` and `pad_token_id`.

    Raises:
        ValueError: No architecture of transformers computes this model.
    """
    kind = model_type(config)
    values: dict[str, Any] = {
        "architectures": [_CLASSES[kind]],
        "model_type": kind,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "dtype": dtype,
        "torch_dtype": dtype,
        **{theirs: getattr(config, ours) for ours, theirs in NAMES.items()},
        "hidden_activation": "gelu_pytorch_tanh",
        "initializer_range": _INITIAL_DEVIATION,
        "intermediate_size": config.ffw_dim,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.layer_norm_epsilon,
        "tie_word_embeddings": True,
        "use_cache": True,
        **ids,
    }
    if kind != "gemma":
        values |= {
            "attn_logit_softcapping": config.attention_logit_soft_cap,
            "final_logit_softcapping": config.final_logit_soft_cap,
            "layer_types": layer_types(config),
            "query_pre_attn_scalar": _query_scalar(config),
            "sliding_window": config.sliding_window_size,
        }
    return values | _rope(config)


def generation_config(ids: dict[str, int], end_of_turn: int | None) -> dict[str, Any]:
    """Return the object of `generation_config.json`: an answer ends with its turn."""
    stops = [ids["eos_token_id"], *([] if end_of_turn is None else [end_of_turn])]
    return {**ids, "eos_token_id": stops}


def tokenizer_config() -> dict[str, Any]:
    """Return the object of `tokenizer_config.json`; `tokenizer.model` is beside it."""
    return {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "additional_special_tokens": [START_OF_TURN, END_OF_TURN],
        "clean_up_tokenization_spaces": False,
        "chat_template": _CHAT_TEMPLATE,
    }


def _query_scalar(config: GemmaConfig) -> float:
    """Return by what root the query is divided, whole where it can be."""
    if config.query_pre_attn_scalar is None:
        if config.query_head_dim_normalize:
            return config.head_dim
        return config.hidden_dim // config.num_query_heads
    scalar = config.query_pre_attn_scalar
    return int(scalar) if scalar == int(scalar) else scalar


def _rope(config: GemmaConfig) -> dict[str, Any]:
    """Return rotary positions, once for transformers 4 and once for 5."""
    if not isinstance(config, Gemma3Config):
        nested: dict[str, Any] = {"rope_theta": LOCAL_BASE, "rope_type": "default"}
        return {"rope_theta": LOCAL_BASE, "rope_parameters": nested}
    nested = rope_parameters(config)
    full = nested["full_attention"]
    scaling = {key: full[key] for key in ("factor", "rope_type") if "factor" in full}
    return {
        "rope_theta": GLOBAL_BASE,
        "rope_local_base_freq": LOCAL_BASE,
        "rope_scaling": scaling or None,
        "rope_parameters": nested,
    }
