"""Writes what KerasHub computes for a small Gemma 3, in the form of its own files.

Turns random weights into `tests/golden/keras_hub/gemma3`: a preset directory with
tokenizer and task, an adapter of rank 3, and outputs with and without it. Run by hand,
in the environment of `make test-peers`; the results are committed.

    KERAS_BACKEND=jax .venv-peers/bin/python tests/tools/make_keras_hub_golden.py
"""

import json
import pathlib

import keras
import keras_hub
import numpy as np

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
TARGET = GOLDEN / "keras_hub" / "gemma3"
RANK = 3


def build() -> keras_hub.models.Gemma3CausalLM:
    """Return the task with random weights of visible size."""
    backbone = keras_hub.models.Gemma3Backbone(
        vocabulary_size=2048,
        image_size=None,
        num_layers=8,  # a whole period of six layers and two more
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=48,
        intermediate_dim=96,
        head_dim=16,
        use_post_ffw_norm=True,
        use_post_attention_norm=True,
        use_sliding_window_attention=True,
        sliding_window_size=6,
        global_rope_scaling_factor=8.0,
    )
    tokenizer = keras_hub.models.Gemma3Tokenizer(
        proto=(GOLDEN / "tiny2k.spm").read_bytes(), has_vision_tokens=False
    )
    preprocessor = keras_hub.models.Gemma3CausalLMPreprocessor(
        tokenizer=tokenizer, sequence_length=20
    )
    task = keras_hub.models.Gemma3CausalLM(backbone=backbone, preprocessor=preprocessor)
    randomise(backbone, np.random.default_rng(3))
    return task


def randomise(backbone: keras.Model, rng: np.random.Generator) -> None:
    """Draw every variable, so that a swapped or missing one shows."""
    for variable in backbone.weights:
        variable.assign(rng.normal(0.0, 0.2, variable.shape))


def batch() -> dict[str, np.ndarray]:
    """Return three rows of 20, 13 and 7 tokens."""
    mask = np.arange(20)[None] < np.array([20, 13, 7])[:, None]
    ids = np.random.default_rng(4).integers(7, 2000, mask.shape)
    ids[:, 0] = 2
    return {
        "token_ids": (ids * mask).astype("int32"),
        "padding_mask": mask.astype("int32"),
    }


def outputs(backbone: keras.Model, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return hidden states and logits in float32."""
    hidden = backbone(inputs)
    logits = backbone.token_embedding(hidden, reverse=True)
    return [np.asarray(hidden), np.asarray(logits)]


def main() -> None:
    """Write everything."""
    task, inputs = build(), batch()
    texts = json.loads((GOLDEN / "keras_hub/gemma2/golden.json").read_text())["text"]
    tokens = [list(map(int, task.preprocessor.tokenizer(text))) for text in texts]
    hidden, logits = outputs(task.backbone, inputs)
    task.save_to_preset(TARGET)
    task.backbone.enable_lora(RANK)
    rng = np.random.default_rng(5)
    for variable in task.backbone.weights:
        if "lora_kernel" in variable.path:
            variable.assign(rng.normal(0.0, 0.2, variable.shape))
    task.backbone.save_lora_weights(str(TARGET / "adapter.lora.h5"))
    hidden_lora, logits_lora = outputs(task.backbone, inputs)
    np.savez_compressed(
        TARGET / "golden.npz",
        **inputs,
        hidden=hidden,
        logits=logits,
        hidden_lora=hidden_lora,
        logits_lora=logits_lora,
        tokens=str(tokens),
    )
    facts = {
        "text": texts,
        "keras": keras.__version__,
        "keras_hub": keras_hub.__version__,
        "variables": [
            [v.path, list(v.shape), v.dtype]
            for v in task.backbone.variables
            if "seed_generator" not in v.path
        ],
    }
    (TARGET / "golden.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
