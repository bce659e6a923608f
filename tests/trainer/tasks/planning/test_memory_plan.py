import math

import jax
import pytest

from gemma.presets import BUILT_IN
from trainer.__main__ import compose
from trainer.config.errors import ConfigError
from trainer.tasks.planning.memory_plan import memory_plan
from trainer.tasks.program import step_program

TINY = BUILT_IN["gemma2_tiny_en"].config
CASES = [
    [],
    ["lora=none"],
    ["lora=none", "optimizer=adafactor"],
    ["preset.quantize=int4"],
    ["preset.quantize=int8", "lora.targets=['*']", "optimizer=muon"],
    ["preset.dtype=bfloat16", "lora.factorisation=shared", "optimizer.ema_decay=0.9"],
    ["preset.dtype=bfloat16", "lora.train_embedding=true"],
]


def on_device(shapes):
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        for x in jax.tree.leaves(shapes)
    )


@pytest.mark.parametrize("mesh", [(1, 8), (4, 2)])
@pytest.mark.parametrize("words", CASES)
def test_the_state_is_that_of_the_real_step_to_the_byte(words, mesh):
    config = compose(["preset=gemma2_tiny_en", f"mesh={mesh[0]}x{mesh[1]}", *words])
    program = step_program(config, jax.devices()[:8])
    parts, (state, frozen, _) = program.parts, program.arguments()
    model = parts.model
    plan = memory_plan(parts.config, model.preset.config, model.lora, platform="cpu")
    found = plan.estimate(mesh)
    assert found.optimizer == on_device(state.slots)
    assert found.adapters + found.weights == on_device((state.trainable, frozen))
    assert found.gradients == on_device(state.trainable)


def test_attention_that_chips_cannot_run_is_refused():
    config = compose(["trainer.attention=splash", "preset.dtype=bfloat16"])
    with pytest.raises(ConfigError, match="trainer.attention"):
        memory_plan(config, TINY, None, platform="gpu")


def test_scores_of_an_accelerator_are_a_larger_block_than_a_cpus():
    words = ["preset.dtype=bfloat16", "data.sequence_length=1024"]
    config = compose([*words, "trainer.microbatch_size=8"])
    cpu = memory_plan(config, TINY, None, platform="cpu")
    gpu = memory_plan(config, TINY, None, platform="gpu")
    assert (cpu.attention, gpu.attention) == ("blocked", "blocked")
    assert (cpu.attention_block, gpu.attention_block) == (128, 512)
    # 8 sequences, 4 heads, float32
    more = 8 * 4 * 4 * (512**2 - 128**2)
    assert gpu.estimate((1, 1)).total - cpu.estimate((1, 1)).total >= more


@pytest.mark.parametrize(
    ("platform", "path"), [("tpu", "splash"), ("cpu", "blocked"), ("gpu", "blocked")]
)
def test_attention_is_what_the_chips_have(platform, path):
    config = compose(["preset.dtype=bfloat16"])
    assert memory_plan(config, TINY, None, platform=platform).attention == path
