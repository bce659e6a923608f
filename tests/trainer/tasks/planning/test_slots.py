import math

import jax
import pytest

from gemma.layout import table
from trainer.__main__ import compose
from trainer.tasks.planning.slots import slot_bytes, trained_arrays
from trainer.tasks.program import step_program

CASES = [
    (optimizer, lora, mesh)
    for optimizer in ("adamw", "adafactor", "lion", "muon", "sgd")
    for lora, mesh in ((["lora=none"], (2, 4)), (["lora.targets=['*']"], (1, 8)))
]


@pytest.mark.parametrize(("optimizer", "lora", "mesh"), CASES)
def test_slots_are_those_of_the_real_step(optimizer, lora, mesh):
    batch, model = mesh
    config = compose(
        [f"optimizer={optimizer}", *lora, f"mesh={batch}x{model}"]
        + ["optimizer.ema_decay=0.9", "preset=gemma2_tiny_en"]
    )
    devices = jax.devices()[: batch * model]
    program = step_program(config, devices)
    real = sum(
        math.prod(slot.sharding.shard_shape(slot.shape)) * slot.dtype.itemsize
        for slot in program.optimizer.shapes().values()
    )
    model = program.parts.model
    layout = table(model.preset.config, mesh, dtype="float32", lora=model.lora)
    is_full = model.lora is None
    trained = trained_arrays(
        layout,
        model.preset.config,
        trains=lambda path: is_full or "/lora_kernel_" in path,
    )
    assert set(trained) == set(model.trainable)
    assert slot_bytes(config.optimizer, trained, mesh) == real
