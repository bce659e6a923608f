"""Tunix: the compiled step of `PeftTrainer` with its own loss, adapters by Qwix.

Key and value are one weight there, so the adapters are on query, key and value. Its
loss leaves out the last position of each sequence.
"""

import importlib.metadata
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import qwix
from flax import nnx
from tunix.models.dummy_model_creator import create_dummy_model
from tunix.models.gemma import model as gemma
from tunix.sft import utils
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig, TrainingInput
from workload import Workload

Step = Callable[[Any, Any], float]
ADAPTED = ".*q_einsum|.*kv_einsum"


def build(workload: Workload) -> Step:
    """Return one optimizer step from inputs and labels to the mean loss."""
    base = create_dummy_model(gemma.Gemma, _config(workload), dtype=jnp.float32)
    provider = qwix.LoraProvider(
        module_path=ADAPTED, rank=workload.lora_rank, alpha=float(workload.lora_rank)
    )
    shape = (workload.batch_size, workload.sequence_length)
    ids = jnp.ones(shape, jnp.int32)
    model = qwix.apply_lora_to_model(
        base, provider, rngs=nnx.Rngs(0), **_model_input(ids)
    )
    del base
    trainer = PeftTrainer(
        model,
        optax.adamw(workload.learning_rate, weight_decay=0.0),
        TrainingConfig(eval_every_n_steps=1_000_000),
    ).with_gen_model_input_fn(_loss_input)
    train_step, _ = trainer.jit_train_and_eval_step(cache_nnx_graph=True)

    def step(inputs: Any, labels: Any) -> float:
        mask = np.ones(inputs.shape, bool)
        batch = TrainingInput(input_tokens=jnp.asarray(inputs), input_mask=mask)
        loss, _, grad_norm = train_step(batch)
        jax.block_until_ready(grad_norm)
        return float(loss)

    return step


def versions() -> str:
    """Return what was measured."""
    names = ("google-tunix", "qwix", "flax", "jax")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _config(workload: Workload) -> gemma.ModelConfig:
    kinds = (gemma.AttentionType.LOCAL_SLIDING, gemma.AttentionType.GLOBAL)
    return gemma.ModelConfig(
        num_layers=workload.num_layers,
        num_embed=workload.vocabulary_size,
        embed_dim=workload.hidden_dim,
        hidden_dim=workload.ffw_dim,
        num_heads=workload.num_query_heads,
        head_dim=workload.head_dim,
        num_kv_heads=workload.num_key_value_heads,
        final_logit_softcap=workload.final_logit_soft_cap,
        use_post_attn_norm=True,
        use_post_ffw_norm=True,
        attention_types=kinds * (workload.num_layers // 2),
        attn_logits_soft_cap=workload.attention_logit_soft_cap,
        sliding_window_size=workload.sliding_window_size,
    )


def _model_input(ids: Any) -> dict[str, Any]:
    """Return the model's arguments for whole sequences."""
    mask = ids > 0  # batches hold no padding
    return {
        "last_tokens": ids,
        "positions": utils.build_positions_from_mask(mask),
        "cache": None,
        "attention_mask": utils.make_causal_attn_mask(mask),
    }


def _loss_input(batch: TrainingInput) -> dict[str, Any]:
    """Return the arguments of Tunix's loss."""
    mask = batch.input_tokens > 0
    return {
        "input_tokens": batch.input_tokens,
        "input_mask": batch.input_mask,
        "positions": utils.build_positions_from_mask(mask),
        "attention_mask": utils.make_causal_attn_mask(mask),
    }
