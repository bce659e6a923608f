"""What a single value may be: words to choose from and ranges of numbers.

Turns a value outside of its range into a `ConfigError`. What several keys mean
together is the subject of `trainer.config.checks`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from functools import partial

from trainer.config.errors import ConfigError
from trainer.config.keys import all_keys, value_of
from trainer.config.schema import RunConfig
from trainer.config.spelling import listing, nearest

CHOICES: dict[str, tuple[str | None, ...]] = {
    "preset.dtype": (None, "float32", "bfloat16"),
    "preset.quantize": ("none", "int8", "int4"),
    "data.source": ("wordnet", "jsonl", "tfds"),
    "data.on_bad_row": ("raise", "skip"),
    "data.on_long_row": ("truncate", "skip", "raise"),
    "lora.factorisation": ("keras", "shared"),
    "optimizer.name": ("adamw", "adafactor", "lion", "muon", "sgd"),
    "schedule.name": ("constant", "linear", "cosine", "wsd"),
    "trainer.remat": (
        "auto",
        "none",
        "block",
        "attention",
        "offload",
        "dots_saveable",
        "dots_with_no_batch_dims_saveable",
    ),
    "trainer.attention": ("auto", "reference", "blocked", "splash", "cudnn"),
    "tracker.name": ("jsonl", "wandb"),
    "tracker.mode": ("auto", "online", "offline"),
    "artifacts.dtype": (None, "float32", "bfloat16"),
    "artifacts.source": ("last", "best"),
    "export.format": ("preset", "hf", "peft"),
    "plan.format": ("text", "json"),
    "launch.name": (
        *("none", "local", "tpu_vm", "tpu_queued", "gke", "slurm", "skypilot"),
    ),
    "task": ("train", "evaluate", "generate", "export", "plan"),
    "checkpoint.on_corrupt": ("stop", "previous"),
    "resume": ("auto", "never", "must"),
}
UPLOADS = ("lora", "preset")
PROJECTIONS = (
    "query",
    "key",
    "value",
    "attention_output",
    "ffw_gating",
    "ffw_gating_2",
    "ffw_linear",
)  # those of gemma.lora, which imports nothing of ours and is not imported here

_AT_LEAST = {
    "mesh.slices": 1,
    "device.simulated": 0,
    "distributed.num_processes": 1,
    "distributed.process_index": 0,
    "distributed.initialize_seconds": 1,
    "distributed.heartbeat_seconds": 2,
    "distributed.stuck_seconds": 1,
    "data.sequence_length": 8,
    "data.pack_window_rows": 1,
    "data.eval_rows": 1,
    "lora.rank": 0,
    "optimizer.weight_decay": 0,
    "schedule.warmup_steps": 0,
    "trainer.num_train_steps": 1,
    "trainer.global_batch_size": 1,
    "trainer.microbatch_size": 1,
    "trainer.eval_every_steps": 0,
    "trainer.log_every_steps": 1,
    "trainer.loss_chunk_tokens": 1,
    "trainer.z_loss": 0,
    "trainer.max_skipped_steps": 1,
    "trainer.sample_prompts": 0,
    "checkpoint.every_steps": 1,
    "checkpoint.keep_last": 1,
    "generate.max_new_tokens": 1,
    "generate.temperature": 0,
    "generate.top_k": 1,
    "generate.seed": 0,
    "launch.processes": 1,
    "launch.max_restarts": 0,
    "launch.limit_minutes": 1,
    "launch.grace_seconds": 1,
    "seed": 0,
}
_ABOVE_ZERO = (
    "lora.alpha",
    "optimizer.learning_rate",
    "optimizer.epsilon",
    "optimizer.clip_norm",
    "trainer.skip_spikes",
)
_BELOW_ONE = (
    "lora.dropout",
    "optimizer.beta_1",
    "optimizer.beta_2",
    "optimizer.ema_decay",
    "trainer.label_smoothing",
    "generate.min_p",
)
_FRACTIONS = ("schedule.decay_fraction", "schedule.final_fraction")
_MAX_SIMULATED = 512


def value_problems(config: RunConfig) -> Iterator[ConfigError]:
    """Yield every value that is outside of what its key allows."""
    for key, choices in CHOICES.items():
        value = value_of(config, key)
        if value not in choices:
            yield wrong_choice(key, value, choices)
    for name in config.tracker.upload:
        if name not in UPLOADS:
            yield wrong_choice("tracker.upload", name, UPLOADS, form="[{}]")
    for key, least in _AT_LEAST.items():
        yield from _outside(
            config, key, partial(operator.le, least), f"{least} or more"
        )
    for key in _ABOVE_ZERO:
        yield from _outside(config, key, lambda v: v > 0, "more than 0")
    for key in _BELOW_ONE:
        yield from _outside(config, key, lambda v: 0 <= v < 1, "0 or more, below 1")
    for key in _FRACTIONS:
        yield from _outside(config, key, lambda v: 0 <= v <= 1, "from 0 to 1")
    yield from _outside(
        config, "generate.top_p", lambda v: 0 < v <= 1, "more than 0, at most 1"
    )
    yield from _outside(
        config, "device.simulated", lambda v: v <= _MAX_SIMULATED, "at most 512"
    )


def wrong_choice(
    key: str,
    value: object,
    choices: tuple[str | None, ...],
    *,
    form: str = "{}",
) -> ConfigError:
    """Return the error of a word that is not among the choices."""
    words = [choice for choice in choices if choice is not None]
    near = nearest(str(value), words) or words[0]
    allowed = [*words, "null"] if None in choices else words
    return ConfigError(
        key=key,
        expected="one of " + listing(allowed) if len(allowed) > 1 else allowed[0],
        received="null" if value is None else str(value),
        fix=f"{key}={form.format(near)}",
    )


def _outside(
    config: RunConfig, key: str, is_right: Callable[[float], bool], expected: str
) -> Iterator[ConfigError]:
    """Yield the error of a number out of its range; null is never out of range."""
    value = value_of(config, key)
    if value is None or (math.isfinite(value) and is_right(value)):
        return
    default = value_of(RunConfig(), key)
    yield ConfigError(
        key=key,
        expected=f"{expected}: {all_keys()[key].meaning}",
        received=value,
        fix=f"{key}={'null' if default is None else default}",
    )
