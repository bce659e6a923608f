"""KerasHub: the compiled function of `Gemma3CausalLM.generate`, on padded ids.

`generate` itself fails on ids after it has computed them: its last step joins images
that a text model has none of.
"""

import importlib.metadata
import os
from collections.abc import Callable
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import keras_hub  # noqa: E402
import numpy as np  # noqa: E402
from generation_workload import GenerationWorkload  # noqa: E402


def build(workload: GenerationWorkload) -> Callable[[Any, int], int]:
    """Return a function from prompts to the number of tokens that it added."""
    backbone = keras_hub.models.Gemma3Backbone(
        vocabulary_size=workload.vocabulary_size,
        image_size=None,
        num_layers=workload.num_layers,
        num_query_heads=workload.num_query_heads,
        num_key_value_heads=workload.num_key_value_heads,
        hidden_dim=workload.hidden_dim,
        intermediate_dim=workload.ffw_dim,
        head_dim=workload.head_dim,
        query_head_dim_normalize=True,
        use_query_key_norm=True,
        use_post_ffw_norm=True,
        use_post_attention_norm=True,
        use_sliding_window_attention=True,
        sliding_window_size=workload.sliding_window_size,
        vision_encoder=None,
        dtype=workload.dtype,
    )
    model = keras_hub.models.Gemma3CausalLM(backbone=backbone, preprocessor=None)
    model.compile(sampler="greedy")
    generate = model.make_generate_function()

    def step(prompts: Any, new_tokens: int) -> int:
        room = np.zeros((len(prompts), new_tokens), "int32")
        token_ids = np.concatenate([prompts, room], axis=1)
        mask = np.arange(token_ids.shape[1])[None] < prompts.shape[1]
        mask = np.broadcast_to(mask, token_ids.shape)
        found = generate(
            {"token_ids": token_ids, "padding_mask": mask}, stop_token_ids=None
        )
        return np.asarray(found["token_ids"]).size - prompts.size

    return step


def versions() -> str:
    """Return what was measured."""
    names = ("keras-hub", "keras", "jax")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
