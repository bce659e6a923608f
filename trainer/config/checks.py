"""Which values make sense, alone and together, before anything is computed.

Turns a typed configuration into a list of problems, all of them at once. It refuses
to look at devices, files or models: those checks are with the code that opens them.
Of this machine it asks only for Keras's backend and a key of W&B, so that a run which
cannot begin says so before JAX is imported.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator

from trainer.config.choices import groups
from trainer.config.distributed_schema import (
    distributed_problems,
    expected_processes,
)
from trainer.config.errors import ConfigError, ConfigErrors
from trainer.config.launch_checks import launch_problems, launched_processes
from trainer.config.limits import value_problems
from trainer.config.lora_checks import STEPPING, lora_problems
from trainer.config.machine_checks import machine_problems
from trainer.config.mesh_shape import (
    check_batch,
    check_devices,
    check_slices,
    parse_shape,
)
from trainer.config.schema import RunConfig
from trainer.config.spelling import listing, nearest
from trainer.config.topology import check_topology
from trainer.config.wandb_mode import choose_mode

__all__ = ["ConfigError", "ConfigErrors", "check", "find_problems", "raise_problems"]


_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check(config: RunConfig) -> None:
    """Refuse a configuration that cannot be meant.

    Raises:
        ConfigError: One problem, or a `ConfigErrors` with several.
    """
    raise_problems(find_problems(config))


def raise_problems(problems: list[ConfigError]) -> None:
    """Raise the one problem, or all of them as one error; nothing when there is none.

    Raises:
        ConfigError: There is a problem.
    """
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ConfigErrors(problems)


def find_problems(config: RunConfig) -> list[ConfigError]:
    """Return every problem of the configuration; what follows from one is left out."""
    values = list(value_problems(config))
    wrong = {problem.key for problem in values}
    together = [
        *_preset_problems(config),
        *_mesh_problems(config),
        *_batch_problems(config),
        *_step_problems(config),
        *machine_problems(config),
        *_data_problems(config),
        *lora_problems(config),
        *_quantize_problems(config),
        *_run_problems(config),
        *_tracker_problems(config),
        *launch_problems(config),
        *_plan_problems(config),
        *distributed_problems(config.distributed),
        *_backend_problems(),
    ]
    return values + [problem for problem in together if problem.key not in wrong]


def _preset_problems(config: RunConfig) -> Iterator[ConfigError]:
    name = config.preset.name
    if "/" in name or "\\" in name or ":" in name or name.startswith((".", "~")):
        return  # a handle or a directory: whoever opens it says whether it is there
    presets = groups()["preset"]
    if name not in presets:
        near = nearest(name, presets)
        yield ConfigError(
            key="preset.name",
            expected=f"one of {listing(presets)}; or a kaggle:// or hf:// handle, or a "
            "directory (./name)",
            received=name,
            fix=f"preset={near or 'gemma2_tiny_en'}",
        )


def _mesh_problems(config: RunConfig) -> Iterator[ConfigError]:
    if config.mesh.shape == "auto":
        return
    try:
        shape = parse_shape(config.mesh.shape)
        if config.device.simulated > 0:
            here = launched_processes(config)
            processes = here or expected_processes(config.distributed)
            devices = config.device.simulated * processes
            check_devices(shape, devices, processes=processes)
        check_slices(shape, max(config.mesh.slices or 1, 1))
    except ConfigError as error:
        yield error
        return
    if config.task in STEPPING and config.trainer.forward_size > 0:
        try:
            whole = max(config.trainer.global_batch_size, 0)
            check_batch(shape, config.trainer.forward_size, whole)
        except ConfigError as error:
            yield error


def _batch_problems(config: RunConfig) -> Iterator[ConfigError]:
    whole, part = config.trainer.global_batch_size, config.trainer.microbatch_size
    if part and part > 0 and whole > 0 and whole % part:
        yield ConfigError(
            key="trainer.microbatch_size",
            expected=f"a divisor of trainer.global_batch_size ({whole})",
            received=part,
            fix=f"trainer.microbatch_size={math.gcd(whole, part)}",
        )


def _step_problems(config: RunConfig) -> Iterator[ConfigError]:
    steps, warmup = config.trainer.num_train_steps, config.schedule.warmup_steps
    if warmup > steps > 0:
        yield ConfigError(
            key="schedule.warmup_steps",
            expected=f"at most trainer.num_train_steps ({steps})",
            received=warmup,
            fix=f"schedule.warmup_steps={steps // 10}",
        )
    fraction = config.schedule.decay_fraction
    stable = round(steps * (1 - fraction))
    if (
        config.schedule.name == "wsd"
        and 0 <= fraction <= 1
        and stable < warmup <= steps
    ):
        yield ConfigError(
            key="schedule.warmup_steps",
            expected=f"at most {stable}, where the decay of schedule=wsd begins "
            f"(schedule.decay_fraction={fraction:g})",
            received=warmup,
            fix=f"schedule.warmup_steps={stable // 10}",
        )


def _data_problems(config: RunConfig) -> Iterator[ConfigError]:
    data = config.data
    if data.source == "jsonl" and not data.path:
        yield _missing("data.path", "a file or glob of JSONL rows", "data/train.jsonl")
    if data.source == "tfds":
        if not data.name:
            yield _missing("data.name", "the name of a TFDS data set", "my_rows")
        if not data.data_dir:
            yield _missing("data.data_dir", "where TFDS data sets are", "data/tfds")
    for key, value, source in (
        ("data.path", data.path, "jsonl"),
        ("data.eval_path", data.eval_path, "jsonl"),
        ("data.name", data.name, "tfds"),
        ("data.data_dir", data.data_dir, "tfds"),
    ):
        if value is not None and data.source != source:
            yield ConfigError(
                key=key,
                expected=f"null, since data={data.source} does not read it",
                received=value,
                fix=f"data={source} {key}={value}",
            )


def _quantize_problems(config: RunConfig) -> Iterator[ConfigError]:
    preset = config.preset
    if preset.quantize == "none":
        return
    if config.lora.rank == 0 and config.task in STEPPING:
        yield ConfigError(
            key="lora.rank",
            expected=f"1 or more, since preset.quantize={preset.quantize} freezes the "
            "base and only adapters can be trained",
            received=0,
            fix="lora=rank8, or preset.quantize=none for full fine-tuning",
        )
    if not preset.load_weights:
        yield ConfigError(
            key="preset.load_weights",
            expected=f"true, since preset.quantize={preset.quantize} quantizes weights "
            "that are read",
            received="false",
            fix="preset.load_weights=true, or preset.quantize=none",
        )


def _run_problems(config: RunConfig) -> Iterator[ConfigError]:
    name = config.run.name
    if name is not None and not _RUN_NAME.fullmatch(name):
        yield ConfigError(
            key="run.name",
            expected="a folder's name: letters, digits, dots, dashes, underscores",
            received=name,
            fix=f"run.name={re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-.')}",
        )


def _tracker_problems(config: RunConfig) -> Iterator[ConfigError]:
    if config.tracker.name != "wandb" or config.task != "train":
        return
    if "preset" in config.tracker.upload and not config.artifacts.preset:
        yield ConfigError(
            key="tracker.upload",
            expected="no preset, since artifacts.preset=false does not write it",
            received=f"[{','.join(config.tracker.upload)}]",
            fix="artifacts.preset=true, or tracker.upload=[lora]",
        )
    try:
        choose_mode(config.tracker.mode)
    except ConfigError as error:
        yield error


def _plan_problems(config: RunConfig) -> Iterator[ConfigError]:
    if config.task != "plan":
        return
    try:
        check_topology(config)
    except ConfigError as error:
        yield error


def _backend_problems() -> Iterator[ConfigError]:
    chosen = os.environ.get("KERAS_BACKEND", "jax")
    if chosen != "jax":
        yield ConfigError(
            key="KERAS_BACKEND",
            expected="jax, or no such variable",
            received=chosen,
            fix="unset KERAS_BACKEND",
        )


def _missing(key: str, expected: str, example: str) -> ConfigError:
    return ConfigError(
        key=key, expected=expected, received="nothing", fix=f"{key}={example}"
    )
