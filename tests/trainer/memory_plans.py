"""Plans of memory for tests: presets under settings that each test changes."""

from gemma.lora import lora_settings
from gemma.presets import BUILT_IN
from trainer.model.memory import MemoryPlan


def plan_of(name, **changed):
    settings = {
        "config": BUILT_IN[name].config,
        "dtype": "bfloat16",
        "lora": lora_settings(8),
        "sequence_length": 1024,
        "microbatch_size": 16,
        "remat": "block",
        "attention": "splash",
        "loss_chunk_tokens": 1024,
        "slot_bytes": lambda layout: 0,
    }
    return MemoryPlan(**(settings | changed))
