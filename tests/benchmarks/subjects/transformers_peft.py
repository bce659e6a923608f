"""transformers with peft: `Gemma2ForCausalLM` and adapters, a plain PyTorch step."""

import importlib.metadata
from collections.abc import Callable
from typing import Any

import peft
import torch
import transformers
from workload import Workload

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def build(
    workload: Workload, attention: str = "eager", remat: str = "none"
) -> Callable[[Any, Any], float]:
    """Return one optimizer step from inputs and labels to the mean loss.

    Args:
        workload: Dimensions and batch.
        attention: `eager` or `flex_attention`; the others leave out the soft cap.
        remat: `none`, or `block` for gradient checkpointing of every layer.
    """
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, workload.dtype))
    with torch.device(DEVICE):
        model = transformers.Gemma2ForCausalLM(config_of(workload, attention))
    lora = peft.LoraConfig(
        r=workload.lora_rank,
        lora_alpha=workload.lora_rank,
        target_modules=["q_proj", "v_proj"],
    )
    model = peft.get_peft_model(model, lora)
    if remat == "block":
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=workload.learning_rate, weight_decay=0.0)
    packed = {}
    if workload.row_tokens is not None:  # it keeps rows apart where positions restart
        packed["position_ids"] = _ids(workload.positions())

    def step(inputs: Any, labels: Any) -> float:
        logits = model(input_ids=_ids(inputs), use_cache=False, **packed).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), _ids(labels).flatten()
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    return step


def _ids(ids: Any) -> torch.Tensor:
    return torch.tensor(ids, dtype=torch.long, device=DEVICE)


def config_of(workload: Workload, attention: str) -> transformers.Gemma2Config:
    """Return the workload's dimensions."""
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
        attn_implementation=attention,
    )


def versions() -> str:
    """Return what was measured."""
    names = ("transformers", "peft", "torch")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
