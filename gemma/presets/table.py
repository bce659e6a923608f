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
from typing import Any

from gemma.config import GemmaConfig


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


def _dimensions(
    common: Mapping[str, Any],
    layers: int,
    heads: int,
    kv_heads: int,
    hidden: int,
    ffw: int,
    **changes: int | bool,
) -> GemmaConfig:
    return GemmaConfig(
        **(
            dict(common)
            | {
                "num_layers": layers,
                "num_query_heads": heads,
                "num_key_value_heads": kv_heads,
                "hidden_dim": hidden,
                "intermediate_dim": 2 * ffw,
            }
            | changes
        )
    )


GEMMA_2B = _dimensions(_GEMMA, 18, 8, 1, 2048, 16_384)
GEMMA_7B = _dimensions(_GEMMA, 28, 16, 16, 3072, 24_576)
GEMMA2_2B = _dimensions(_GEMMA2, 26, 8, 4, 2304, 9_216)
GEMMA2_9B = _dimensions(_GEMMA2, 42, 16, 8, 3584, 14_336)
GEMMA2_27B = _dimensions(
    _GEMMA2, 46, 32, 16, 4608, 36_864, head_dim=128, query_head_dim_normalize=False
)
GEMMA2_TINY = _dimensions(
    _GEMMA2,
    4,
    4,
    2,
    256,
    640,
    vocabulary_size=4096,
    head_dim=64,
    sliding_window_size=128,
)

_BASE = "base model"
_INSTRUCT = "instruction tuned"
_INSTRUCT_11 = "instruction tuned, version 1.1"
_CODE = "code completion by filling in the middle"
_CODE_11 = "code completion by filling in the middle, version 1.1"
_CODE_INSTRUCT = "instruction tuned for conversations about code"
_CODE_INSTRUCT_11 = "instruction tuned for conversations about code, version 1.1"
_SHIELD = "judges whether a text is safe"

_ROWS: tuple[tuple[str, GemmaConfig, str, str], ...] = (
    ("gemma_2b_en", GEMMA_2B, "keras/gemma/keras/gemma_2b_en/3", _BASE),
    (
        "gemma_instruct_2b_en",
        GEMMA_2B,
        "keras/gemma/keras/gemma_instruct_2b_en/3",
        _INSTRUCT,
    ),
    (
        "gemma_1.1_instruct_2b_en",
        GEMMA_2B,
        "keras/gemma/keras/gemma_1.1_instruct_2b_en/4",
        _INSTRUCT_11,
    ),
    (
        "code_gemma_1.1_2b_en",
        GEMMA_2B,
        "keras/codegemma/keras/code_gemma_1.1_2b_en/2",
        _CODE_11,
    ),
    (
        "code_gemma_2b_en",
        GEMMA_2B,
        "keras/codegemma/keras/code_gemma_2b_en/2",
        _CODE,
    ),
    ("gemma_7b_en", GEMMA_7B, "keras/gemma/keras/gemma_7b_en/4", _BASE),
    (
        "gemma_instruct_7b_en",
        GEMMA_7B,
        "keras/gemma/keras/gemma_instruct_7b_en/4",
        _INSTRUCT,
    ),
    (
        "gemma_1.1_instruct_7b_en",
        GEMMA_7B,
        "keras/gemma/keras/gemma_1.1_instruct_7b_en/5",
        _INSTRUCT_11,
    ),
    (
        "code_gemma_7b_en",
        GEMMA_7B,
        "keras/codegemma/keras/code_gemma_7b_en/3",
        _CODE,
    ),
    (
        "code_gemma_instruct_7b_en",
        GEMMA_7B,
        "keras/codegemma/keras/code_gemma_instruct_7b_en/3",
        _CODE_INSTRUCT,
    ),
    (
        "code_gemma_1.1_instruct_7b_en",
        GEMMA_7B,
        "keras/codegemma/keras/code_gemma_1.1_instruct_7b_en/3",
        _CODE_INSTRUCT_11,
    ),
    ("gemma2_2b_en", GEMMA2_2B, "keras/gemma2/keras/gemma2_2b_en/2", _BASE),
    (
        "gemma2_instruct_2b_en",
        GEMMA2_2B,
        "keras/gemma2/keras/gemma2_instruct_2b_en/2",
        _INSTRUCT,
    ),
    ("gemma2_9b_en", GEMMA2_9B, "keras/gemma2/keras/gemma2_9b_en/4", _BASE),
    (
        "gemma2_instruct_9b_en",
        GEMMA2_9B,
        "keras/gemma2/keras/gemma2_instruct_9b_en/4",
        _INSTRUCT,
    ),
    ("gemma2_27b_en", GEMMA2_27B, "keras/gemma2/keras/gemma2_27b_en/3", _BASE),
    (
        "gemma2_instruct_27b_en",
        GEMMA2_27B,
        "keras/gemma2/keras/gemma2_instruct_27b_en/3",
        _INSTRUCT,
    ),
    (
        "shieldgemma_2b_en",
        GEMMA2_2B,
        "google/shieldgemma/keras/shieldgemma_2b_en/2",
        _SHIELD,
    ),
    (
        "shieldgemma_9b_en",
        GEMMA2_9B,
        "google/shieldgemma/keras/shieldgemma_9b_en/2",
        _SHIELD,
    ),
    (
        "shieldgemma_27b_en",
        GEMMA2_27B,
        "google/shieldgemma/keras/shieldgemma_27b_en/2",
        _SHIELD,
    ),
)

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
            handle=f"kaggle://{handle}",
            dtype="bfloat16",
            description=description,
        )
        for name, config, handle, description in _ROWS
    }
    | {TINY.name: TINY}
)
"""Every built-in preset by name."""
