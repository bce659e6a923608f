"""Writes what transformers computes for shapes that the first golden files lack.

Turns two tiny random models of 27B's proportions (the query's scale is neither
head_dim's nor 1) into directories with their logits, and the golden models of each
family into the error that transformers itself makes in bfloat16. Run by hand, in the
environment of `make test-peers`, whenever a shape is added; the results are committed.

    .venv-peers/bin/python tests/tools/make_golden.py
"""

import json
import pathlib

import numpy as np
import torch
import transformers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
)

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SHAPES_OF_27B = {
    "vocab_size": 128,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 12,  # 48 / 4, where head_dim is 16
    "sliding_window": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "attn_implementation": "eager",
}
MODELS = {
    "gemma2_27b": (Gemma2ForCausalLM, Gemma2Config, {"num_hidden_layers": 3}),
    "gemma3_27b": (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        {
            "num_hidden_layers": 7,
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "linear",
                    "factor": 8.0,
                    "rope_theta": 1_000_000.0,
                },
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            },
        },
    ),
}
FAMILIES = ("gemma", "gemma2", "gemma3")


def write_model(name: str) -> None:
    """Write config.json, model.safetensors and golden.npz of one model."""
    model_class, config_class, more = MODELS[name]
    torch.manual_seed(7)
    model = model_class(config_class(**SHAPES_OF_27B, **more)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms start at 0: give them something to say
                parameter.normal_(0.0, 0.3)
    ids = np.random.default_rng(7).integers(3, 128, (2, 24))
    with torch.no_grad():
        logits = model(torch.tensor(ids)).logits.numpy()
    model.save_pretrained(GOLDEN / "transformers" / name)
    (GOLDEN / "transformers" / name / "generation_config.json").unlink()
    np.savez_compressed(
        GOLDEN / "transformers" / name / "golden.npz", input_ids=ids, logits=logits
    )


def bfloat16_error(family: str) -> dict[str, float]:
    """Return how far transformers in bfloat16 is from its own float32 logits."""
    directory = GOLDEN / "hf" / family
    golden = np.load(directory / "golden.npz")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.bfloat16, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        logits = model(
            torch.tensor(golden["input_ids"]),
            attention_mask=torch.tensor(golden["attention_mask"]),
        ).logits
    valid = golden["attention_mask"].astype(bool)
    error = np.abs(logits.float().numpy() - golden["logits"])[valid]
    return {"max": float(error.max()), "mean": float(error.mean())}


def main() -> None:
    """Write everything."""
    for name in MODELS:
        write_model(name)
    facts = {
        "transformers": transformers.__version__,
        "bfloat16_error_of_logits": {f: bfloat16_error(f) for f in FAMILIES},
    }
    text = json.dumps(facts, indent=2) + "\n"
    (GOLDEN / "transformers" / "facts.json").write_text(text)


if __name__ == "__main__":
    main()
