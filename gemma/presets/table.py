"""The built-in presets: a name gives dimensions and a place to download from.

Turns a name into facts without a file or a network, so that a plan for 27 billion
parameters costs nothing. It refuses to know how a handle is downloaded.

Source: the dimensions are those of the published Gemma configurations; names, handles
and parameter counts are KerasHub's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from gemma.config import Gemma3Config, GemmaConfig

Config = TypeVar("Config", bound=GemmaConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """Facts about one built-in preset."""

    name: str
    config: GemmaConfig
    handle: str | None
    """Where its files are published; None for the preset inside this package."""
    dtype: str
    description: str

    @property
    def parameter_count(self) -> int:
        """Number of parameters; the tied embedding counts once."""
        return self.config.parameter_count


_GEMMA = {"vocabulary_size": 256_000, "head_dim": 256}
_GEMMA2 = _GEMMA | {
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "attention_logit_soft_cap": 50.0,
    "final_logit_soft_cap": 30.0,
    "use_sliding_window_attention": True,
    "sliding_window_size": 4096,
}
_GEMMA3 = {
    "vocabulary_size": 262_144,
    "head_dim": 256,
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "use_sliding_window_attention": True,
    "sliding_window_size": 512,
}
_GEMMA3_LONG = _GEMMA3 | {
    "sliding_window_size": 1024,
    "global_rope_scaling_factor": 8.0,
}
_27B = {"head_dim": 128, "query_head_dim_normalize": False}
_TINY = {"vocabulary_size": 4096, "head_dim": 64, "sliding_window_size": 128}


def _dimensions(
    cls: type[Config],
    common: Mapping[str, Any],
    layers: int,
    heads: tuple[int, int],
    hidden: int,
    intermediate: int,
) -> Config:
    query_heads, key_value_heads = heads
    return cls(
        **common,
        num_layers=layers,
        num_query_heads=query_heads,
        num_key_value_heads=key_value_heads,
        hidden_dim=hidden,
        intermediate_dim=intermediate,
    )


# layers, (query, key/value heads), hidden_dim, intermediate_dim: twice the
# feed-forward width up to Gemma 2, once from Gemma 3 on, as in KerasHub's files
GEMMA_2B = _dimensions(GemmaConfig, _GEMMA, 18, (8, 1), 2048, 32_768)
GEMMA_7B = _dimensions(GemmaConfig, _GEMMA, 28, (16, 16), 3072, 49_152)
GEMMA2_2B = _dimensions(GemmaConfig, _GEMMA2, 26, (8, 4), 2304, 18_432)
GEMMA2_9B = _dimensions(GemmaConfig, _GEMMA2, 42, (16, 8), 3584, 28_672)
GEMMA2_27B = _dimensions(GemmaConfig, _GEMMA2 | _27B, 46, (32, 16), 4608, 73_728)
GEMMA2_TINY = _dimensions(GemmaConfig, _GEMMA2 | _TINY, 4, (4, 2), 256, 1280)
GEMMA3_270M = _dimensions(Gemma3Config, _GEMMA3, 18, (4, 1), 640, 2048)
GEMMA3_1B = _dimensions(Gemma3Config, _GEMMA3, 26, (4, 1), 1152, 6912)
GEMMA3_4B = _dimensions(Gemma3Config, _GEMMA3_LONG, 34, (8, 4), 2560, 10_240)
GEMMA3_12B = _dimensions(Gemma3Config, _GEMMA3_LONG, 48, (16, 8), 3840, 15_360)
GEMMA3_27B = _dimensions(Gemma3Config, _GEMMA3_LONG | _27B, 62, (32, 16), 5376, 21_504)

_BASE = "base model"
_INSTRUCT = "instruction tuned"
_INSTRUCT_11 = "instruction tuned, version 1.1"
_CODE = "code completion by filling in the middle"
_CODE_11 = "code completion by filling in the middle, version 1.1"
_CODE_INSTRUCT = "instruction tuned for conversations about code"
_CODE_INSTRUCT_11 = "instruction tuned for conversations about code, version 1.1"
_SHIELD = "judges whether a text is safe"

_Row = tuple[str, int, GemmaConfig, str]

_PUBLISHED: Mapping[str, tuple[_Row, ...]] = {
    "keras/gemma": (
        ("gemma_2b_en", 3, GEMMA_2B, _BASE),
        ("gemma_instruct_2b_en", 3, GEMMA_2B, _INSTRUCT),
        ("gemma_1.1_instruct_2b_en", 4, GEMMA_2B, _INSTRUCT_11),
        ("gemma_7b_en", 4, GEMMA_7B, _BASE),
        ("gemma_instruct_7b_en", 4, GEMMA_7B, _INSTRUCT),
        ("gemma_1.1_instruct_7b_en", 5, GEMMA_7B, _INSTRUCT_11),
    ),
    "keras/codegemma": (
        ("code_gemma_1.1_2b_en", 2, GEMMA_2B, _CODE_11),
        ("code_gemma_2b_en", 2, GEMMA_2B, _CODE),
        ("code_gemma_7b_en", 3, GEMMA_7B, _CODE),
        ("code_gemma_instruct_7b_en", 3, GEMMA_7B, _CODE_INSTRUCT),
        ("code_gemma_1.1_instruct_7b_en", 3, GEMMA_7B, _CODE_INSTRUCT_11),
    ),
    "keras/gemma2": (
        ("gemma2_2b_en", 2, GEMMA2_2B, _BASE),
        ("gemma2_instruct_2b_en", 2, GEMMA2_2B, _INSTRUCT),
        ("gemma2_9b_en", 4, GEMMA2_9B, _BASE),
        ("gemma2_instruct_9b_en", 4, GEMMA2_9B, _INSTRUCT),
        ("gemma2_27b_en", 3, GEMMA2_27B, _BASE),
        ("gemma2_instruct_27b_en", 3, GEMMA2_27B, _INSTRUCT),
    ),
    "google/shieldgemma": (
        ("shieldgemma_2b_en", 2, GEMMA2_2B, _SHIELD),
        ("shieldgemma_9b_en", 2, GEMMA2_9B, _SHIELD),
        ("shieldgemma_27b_en", 2, GEMMA2_27B, _SHIELD),
    ),
    "keras/gemma3": (
        ("gemma3_270m", 3, GEMMA3_270M, _BASE),
        ("gemma3_instruct_270m", 4, GEMMA3_270M, _INSTRUCT),
        ("gemma3_1b", 3, GEMMA3_1B, _BASE),
        ("gemma3_instruct_1b", 3, GEMMA3_1B, _INSTRUCT),
        ("gemma3_4b_text", 2, GEMMA3_4B, _BASE),
        ("gemma3_instruct_4b_text", 3, GEMMA3_4B, _INSTRUCT),
        ("gemma3_12b_text", 3, GEMMA3_12B, _BASE),
        ("gemma3_instruct_12b_text", 3, GEMMA3_12B, _INSTRUCT),
        ("gemma3_27b_text", 4, GEMMA3_27B, _BASE),
        ("gemma3_instruct_27b_text", 3, GEMMA3_27B, _INSTRUCT),
    ),
}
"""Name, version, dimensions and description, by the place where they are published."""

TINY = BuiltIn(
    name="gemma2_tiny_en",
    config=GEMMA2_TINY,
    handle=None,
    dtype="bfloat16",
    description="small English model inside this package",
)

BUILT_IN: Mapping[str, BuiltIn] = MappingProxyType(
    {
        name: BuiltIn(
            name=name,
            config=config,
            handle=f"kaggle://{model}/keras/{name}/{version}",
            dtype="bfloat16",
            description=description,
        )
        for model, rows in _PUBLISHED.items()
        for name, version, config, description in rows
    }
    | {TINY.name: TINY}
)
"""Every built-in preset by name."""
