"""This project: `Gemma3CausalLM.generate` on ids."""

import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np
from generation_workload import GenerationWorkload

from gemma import Gemma3Backbone, Gemma3CausalLM


def build(workload: GenerationWorkload) -> Callable[[Any, int], int]:
    """Return a function from prompts to the number of tokens that it added."""
    backbone = Gemma3Backbone(
        vocabulary_size=workload.vocabulary_size,
        image_size=None,
        num_layers=workload.num_layers,
        num_query_heads=workload.num_query_heads,
        num_key_value_heads=workload.num_key_value_heads,
        hidden_dim=workload.hidden_dim,
        intermediate_dim=workload.ffw_dim,
        head_dim=workload.head_dim,
        use_post_ffw_norm=True,
        use_post_attention_norm=True,
        use_sliding_window_attention=True,
        sliding_window_size=workload.sliding_window_size,
        dtype=workload.dtype,
    )
    model = Gemma3CausalLM(backbone)

    def step(prompts: Any, new_tokens: int) -> int:
        length = prompts.shape[1] + new_tokens
        found = model.generate({"token_ids": prompts}, length, stop_token_ids=None)
        return int(np.sum(found["padding_mask"])) - prompts.size

    return step


def versions() -> str:
    """Return what was measured."""
    names = ("jax", "keras")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
