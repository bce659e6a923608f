"""The parts of a run, assembled from its configuration.

Turns a `RunConfig` into mesh, model, tokenizer and data. Every task starts here, so
that what was trained and what is asked later are the same.
"""

from __future__ import annotations

import dataclasses

import jax
from jax.sharding import Mesh

from gemma.adapters import Adapter
from gemma.lora import LoraSettings
from gemma.presets import Preset, PresetFileError, open_preset
from gemma.tokenizers import GemmaTokenizer
from trainer.config.errors import PresetError
from trainer.config.schema import RunConfig
from trainer.data.opening import TrainingData, open_data
from trainer.distribution.mesh import (
    MeshChoice,
    build_mesh,
    choose_mesh,
    device_bytes,
)
from trainer.model.adapters import adapter_settings
from trainer.model.assemble import Model, build_model
from trainer.model.memory import MemoryPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """What a task works with."""

    config: RunConfig
    choice: MeshChoice
    mesh: Mesh
    model: Model
    adapter: Adapter | None  # to start from
    tokenizer: GemmaTokenizer

    @property
    def microbatches(self) -> int:
        """Forward passes of an optimizer step."""
        trainer = self.config.trainer
        return trainer.global_batch_size // trainer.forward_size

    def open_data(self) -> TrainingData:
        """Open and check the rows of the configuration."""
        return open_data(
            self.config.data,
            self.tokenizer,
            seed=self.config.seed,
            global_batch_size=self.config.trainer.global_batch_size,
        )


def build_session(config: RunConfig, *, saved: LoraSettings | None = None) -> Session:
    """Open the preset, choose the mesh and build the model without arrays.

    Args:
        config: What to build.
        saved: Settings of adapters that are restored; their `lora.path` is not read.

    Raises:
        PresetError: The preset cannot be opened, or has no tokenizer.
        ConfigError: The mesh or the adapters are impossible.
    """
    preset = _open(config.preset.name)
    lora, adapter = saved, None
    if saved is None:
        lora, adapter = adapter_settings(config.lora, preset)
    devices = jax.devices()
    config = _with_dtype(config, devices[0].platform)
    quantize = config.preset.quantize
    quantize = None if quantize == "none" else quantize
    trainer = config.trainer
    plan = MemoryPlan(
        config=preset.config,
        dtype_bytes=4 if config.preset.dtype == "float32" else 2,
        lora=lora,
        quantize=quantize,
        sequence_length=config.data.sequence_length,
        microbatch_size=trainer.forward_size,
        remat=trainer.remat,
        loss_chunk_tokens=trainer.loss_chunk_tokens,
    )
    choice = choose_mesh(
        config.mesh.shape,
        num_devices=len(devices),
        microbatch_size=plan.microbatch_size,
        planned_bytes=plan.bytes_per_device,
        bytes_per_device=device_bytes(devices[0]),
    )
    mesh = build_mesh(choice.shape, devices)
    model = build_model(
        preset,
        mesh,
        dtype=config.preset.dtype,
        lora=lora,
        quantize=quantize,
    )
    return Session(
        config=config,
        choice=choice,
        mesh=mesh,
        model=model,
        adapter=adapter,
        tokenizer=_tokenizer(preset),
    )


def _with_dtype(config: RunConfig, platform: str) -> RunConfig:
    """Fill in the dtype that suits the devices where the configuration leaves it."""
    dtype = config.preset.dtype or ("float32" if platform == "cpu" else "bfloat16")
    preset = dataclasses.replace(config.preset, dtype=dtype)
    return dataclasses.replace(config, preset=preset)


def _open(name: str) -> Preset:
    try:
        return open_preset(name)
    except PresetFileError as error:
        raise preset_error(error) from error


def preset_error(error: PresetFileError) -> PresetError:
    """Say a library's error in the words of the configuration."""
    return PresetError(
        key=f"preset.name ({error.subject})",
        expected=error.expected,
        received=error.received,
        fix=error.fix,
    )


def _tokenizer(preset: Preset) -> GemmaTokenizer:
    vocabulary = preset.vocabulary()
    if vocabulary is None:
        raise PresetError(
            key="preset.name",
            expected="a preset with a SentencePiece vocabulary",
            received=f"{preset.name}, which has no tokenizer files",
            fix="put tokenizer.model, or assets/tokenizer/vocabulary.spm, beside them",
        )
    return GemmaTokenizer(vocabulary)
