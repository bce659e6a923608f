"""transformers: `Gemma3ForCausalLM.generate` with PyTorch, its default attention."""

import importlib.metadata
from collections.abc import Callable
from typing import Any

import torch
from generation_workload import GenerationWorkload
from transformers import Gemma3ForCausalLM, Gemma3TextConfig


def build(workload: GenerationWorkload) -> Callable[[Any, int], int]:
    """Return a function from prompts to the number of tokens that it added."""
    config = Gemma3TextConfig(
        vocab_size=workload.vocabulary_size,
        num_hidden_layers=workload.num_layers,
        num_attention_heads=workload.num_query_heads,
        num_key_value_heads=workload.num_key_value_heads,
        hidden_size=workload.hidden_dim,
        intermediate_size=workload.ffw_dim,
        head_dim=workload.head_dim,
        query_pre_attn_scalar=workload.head_dim,
        sliding_window=workload.sliding_window_size,
        dtype=workload.dtype,
    )
    model = Gemma3ForCausalLM(config).eval()
    model.generation_config.eos_token_id = None

    def step(prompts: Any, new_tokens: int) -> int:
        ids = torch.tensor(prompts.astype("int64"))
        with torch.inference_mode():
            found = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new_tokens,
                do_sample=False,
            )
        return found.numel() - ids.numel()

    return step


def versions() -> str:
    """Return what was measured."""
    names = ("transformers", "torch")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
