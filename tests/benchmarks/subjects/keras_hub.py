"""KerasHub: `GemmaCausalLM.train_on_batch` after `enable_lora`."""

import importlib.metadata
import os
from collections.abc import Callable
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import keras  # noqa: E402
import keras_hub  # noqa: E402
import numpy as np  # noqa: E402
from workload import Workload  # noqa: E402


def build(workload: Workload) -> Callable[[Any, Any], float]:
    """Return one optimizer step from inputs and labels to the mean loss."""
    backbone = keras_hub.models.GemmaBackbone(
        vocabulary_size=workload.vocabulary_size,
        num_layers=workload.num_layers,
        num_query_heads=workload.num_query_heads,
        num_key_value_heads=workload.num_key_value_heads,
        hidden_dim=workload.hidden_dim,
        intermediate_dim=2 * workload.ffw_dim,
        head_dim=workload.head_dim,
        use_post_ffw_norm=True,
        use_post_attention_norm=True,
        attention_logit_soft_cap=workload.attention_logit_soft_cap,
        final_logit_soft_cap=workload.final_logit_soft_cap,
        use_sliding_window_attention=True,
        sliding_window_size=workload.sliding_window_size,
        dtype=workload.dtype,
    )
    backbone.enable_lora(workload.lora_rank)
    model = keras_hub.models.GemmaCausalLM(backbone=backbone, preprocessor=None)
    model.compile(
        optimizer=keras.optimizers.AdamW(workload.learning_rate, weight_decay=0.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    def step(inputs: Any, labels: Any) -> float:
        mask = np.ones(inputs.shape, "int32")
        features = {"token_ids": inputs, "padding_mask": mask}
        logs = model.train_on_batch(features, labels, return_dict=True)
        return float(logs["loss"])

    return step


def versions() -> str:
    """Return what was measured."""
    names = ("keras-hub", "keras", "jax")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
