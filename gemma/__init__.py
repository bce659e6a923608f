"""Gemma for Keras 3 on JAX: backbones, tokenizers, presets, adapters.

    from gemma import GemmaBackbone
    backbone = GemmaBackbone.from_preset("gemma2_tiny_en")

Names load on first use, so that `gemma.config` costs neither Keras nor JAX.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Backbone": "gemma.backbones.backbone",
    "CausalLM": "gemma.causal_lm",
    "Gemma3Backbone": "gemma.backbones.gemma3_backbone",
    "Gemma3CausalLM": "gemma.causal_lm",
    "Gemma3CausalLMPreprocessor": "gemma.preprocessors",
    "Gemma3Config": "gemma.config",
    "Gemma3Tokenizer": "gemma.tokenizers",
    "GemmaBackbone": "gemma.backbones.gemma_backbone",
    "GemmaCausalLM": "gemma.causal_lm",
    "GemmaCausalLMPreprocessor": "gemma.preprocessors",
    "GemmaConfig": "gemma.config",
    "GemmaTokenizer": "gemma.tokenizers",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:  # noqa: ANN401  # classes of every kind
    if name not in _HOMES:
        raise AttributeError(f"module 'gemma' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
