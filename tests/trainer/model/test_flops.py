"""The operations of a step: by hand, and against the compiler's own count."""

import jax
import jax.numpy as jnp
import pytest

from gemma.backbones.gemma_backbone import GemmaBackbone
from gemma.config import Gemma3Config, GemmaConfig
from gemma.lora import lora_settings
from trainer.model.flops import StepFlops

# XLA counts every elementwise operation as well, and the tiny model's are not so small
ELEMENTWISE = 0.04

SMALL = GemmaConfig(
    vocabulary_size=100,
    num_layers=2,
    num_query_heads=4,
    num_key_value_heads=2,
    hidden_dim=8,
    intermediate_dim=32,
    head_dim=6,
    sliding_window_size=4,
    use_sliding_window_attention=True,
)
# a layer: query 4*8*6 = 192, key and value 2*8*6 = 96 each, output 192, three
# feed-forward kernels of 8*16 = 128 each: 960 weights
LAYER = 960
# a local layer (window 4) of 10 tokens: 1 + 2 + 3 + 4 * 7 = 34 pairs; a global one 55
PAIRS = 34 + 55


def test_full_fine_tuning_by_hand():
    got = StepFlops(config=SMALL, lora=None).of(lengths=[10, 10, 10], loss_tokens=7)
    weights = 6 * 2 * LAYER * 30
    attention = 12 * 4 * 6 * PAIRS * 3  # three sequences of 10 tokens
    logits = 6 * 100 * 8 * 7
    assert got == weights + attention + logits == 456_096


def test_adapters_by_hand():
    lora = lora_settings(3, targets=["query", "attention_output"])
    got = StepFlops(config=SMALL, lora=lora).of(lengths=[10, 10, 10], loss_tokens=7)
    # query: A 4*8*3 = 96, B 3*6 = 18 for each of 4 heads; output: A 4*6*3 = 72, B 3*8
    adapters = 6 * 2 * (96 + 72 + 72 + 24) * 30
    frozen = 4 * 2 * LAYER * 30 + 4 * 100 * 8 * 7
    assert got == frozen + 12 * 4 * 6 * PAIRS * 3 + adapters == 424_736


def test_an_embedding_trained_beside_adapters_counts_its_own_gradient():
    lora = lora_settings(2)
    batch = {"lengths": [10, 10, 10], "loss_tokens": 7}
    frozen = StepFlops(config=SMALL, lora=lora).of(**batch)
    trained = StepFlops(config=SMALL, lora=lora, trains_embedding=True).of(**batch)
    assert trained - frozen == 2 * 7 * SMALL.vocabulary_size * SMALL.hidden_dim


def test_a_shared_factor_is_used_once():
    lora = lora_settings(3, targets=["value"], factorisation="shared")
    adapted = StepFlops(config=SMALL, lora=lora)._adapters()
    assert adapted == 6 * 2 * (8 * 3 + 3 * 2 * 6)  # A 8*3; B 3*2*6


def test_rows_of_a_pack_attend_apart():
    count = StepFlops(config=SMALL, lora=None).of
    packed = count(lengths=[4, 6], loss_tokens=0)
    # global: 10 + 21 pairs; local with a window of 4: 10 + (10 + 2 * 4)
    assert packed == 6 * 2 * LAYER * 10 + 12 * 4 * 6 * (31 + 28)
    assert packed < count(lengths=[10], loss_tokens=0)


def test_positions_without_loss_need_no_logits():
    count = StepFlops(config=SMALL, lora=None).of
    assert count(lengths=[10, 10], loss_tokens=8) == 2 * count(
        lengths=[10], loss_tokens=4
    )
    assert count(lengths=[], loss_tokens=0) == 0


def test_a_local_layer_grows_with_its_window_not_with_the_length():
    config = Gemma3Config.from_mapping({**SMALL.to_mapping(), "num_layers": 5})
    pairs = StepFlops(config=config, lora=None)._attended_pairs
    assert pairs([1000]) == 5 * (10 + 996 * 4)  # all five layers are local


@pytest.mark.parametrize("adapts", [False, True])
def test_the_compiler_counts_the_same_for_an_unrolled_model(adapts):
    length, batch = 16, 2
    model = GemmaBackbone(
        vocabulary_size=512,
        num_layers=6,
        num_query_heads=8,
        num_key_value_heads=8,
        hidden_dim=256,
        intermediate_dim=2048,
        head_dim=32,
    )
    lora = lora_settings(4, targets=["query", "value"]) if adapts else None
    if adapts:
        model.enable_lora(4, ["query", "value"])
    values = [[v.value for v in model.trainable_variables]]
    values.append([v.value for v in model.non_trainable_variables])
    is_table = [v.path.endswith("/embeddings") for v in model.trainable_variables]
    ids = jnp.ones((batch, length), "int32")

    def loss(trained, frozen):
        table = model.token_embedding.embeddings.value
        if not adapts:
            table = trained[is_table.index(True)]
        inputs = {"token_ids": ids, "padding_mask": jnp.ones_like(ids)}
        hidden, _ = model.stateless_call(trained, frozen, inputs)
        return jax.nn.logsumexp(hidden @ table.T, axis=-1).sum()

    step = jax.jit(jax.grad(loss)).lower(*values).compile()
    counted = step.cost_analysis()["flops"]
    ours = StepFlops(config=model.gemma_config, lora=lora).of(
        lengths=[length] * batch, loss_tokens=batch * length
    )
    assert ours == pytest.approx(counted, rel=ELEMENTWISE)
