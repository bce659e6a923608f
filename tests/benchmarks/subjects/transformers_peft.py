"""transformers with peft: `Gemma2ForCausalLM` and adapters, a plain PyTorch step."""

import importlib.metadata
from collections.abc import Callable
from typing import Any

import peft
import torch
import transformers
from workload import Workload


def build(workload: Workload) -> Callable[[Any, Any], float]:
    """Return one optimizer step from inputs and labels to the mean loss."""
    torch.manual_seed(0)
    model = transformers.Gemma2ForCausalLM(config_of(workload))
    lora = peft.LoraConfig(
        r=workload.lora_rank,
        lora_alpha=workload.lora_rank,
        target_modules=["q_proj", "v_proj"],
    )
    model = peft.get_peft_model(model, lora).to(getattr(torch, workload.dtype))
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=workload.learning_rate, weight_decay=0.0)

    def step(inputs: Any, labels: Any) -> float:
        logits = model(input_ids=torch.from_numpy(inputs).long(), use_cache=False)
        loss = torch.nn.functional.cross_entropy(
            logits.logits.flatten(0, 1), torch.from_numpy(labels).long().flatten()
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    return step


def config_of(workload: Workload) -> transformers.Gemma2Config:
    """Return the workload's dimensions; only `eager` attention has the soft cap."""
    return transformers.Gemma2Config(
        vocab_size=workload.vocabulary_size,
        num_hidden_layers=workload.num_layers,
        hidden_size=workload.hidden_dim,
        intermediate_size=workload.ffw_dim,
        num_attention_heads=workload.num_query_heads,
        num_key_value_heads=workload.num_key_value_heads,
        head_dim=workload.head_dim,
        query_pre_attn_scalar=workload.head_dim,
        attn_logit_softcapping=workload.attention_logit_soft_cap,
        final_logit_softcapping=workload.final_logit_soft_cap,
        sliding_window=workload.sliding_window_size,
        max_position_embeddings=workload.sequence_length,
        attn_implementation="eager",
    )


def versions() -> str:
    """Return what was measured."""
    names = ("transformers", "peft", "torch")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
