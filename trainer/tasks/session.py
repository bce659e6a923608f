"""The parts of a run, assembled from its configuration.

Turns a `RunConfig` into mesh, model, tokenizer and data. Every task starts here, so
that what was trained and what is asked later are the same. What a step is compiled
from needs no tokenizer and no device of this machine: `assemble` stops there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from gemma.adapters import Adapter
from gemma.attention import Target
from gemma.lora import LoraSettings
from gemma.presets import Preset, PresetFileError, open_preset
from gemma.tokenizers import GemmaTokenizer
from trainer.config.errors import ConfigError, PresetError
from trainer.config.schema import RunConfig
from trainer.data.opening import Sources, TrainingData, open_data
from trainer.data.sources import Share
from trainer.distribution.exchange import from_primary
from trainer.distribution.mesh import (
    MeshChoice,
    build_mesh,
    choose_mesh,
    count_slices,
    usable_bytes,
)
from trainer.model.adapters import adapter_settings
from trainer.model.assemble import Model, build_model
from trainer.model.attention import build_attention
from trainer.model.remat import check_remat, choose_remat
from trainer.tasks.planning.memory_plan import memory_plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assembly:
    """What a step is compiled from; the devices may be described and not be here."""

    config: RunConfig
    choice: MeshChoice
    mesh: Mesh
    model: Model
    adapter: Adapter | None  # to start from

    @property
    def microbatches(self) -> int:
        """Forward passes of an optimizer step."""
        trainer = self.config.trainer
        return trainer.global_batch_size // trainer.forward_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session(Assembly):
    """What a task works with."""

    tokenizer: GemmaTokenizer

    def open_data(
        self, sources: Sources | None = None, share: Share | None = None
    ) -> TrainingData:
        """Open and check the rows of the configuration, as `open_data` does."""
        return open_data(
            self.config.data,
            self.tokenizer,
            seed=self.config.seed,
            global_batch_size=self.config.trainer.global_batch_size,
            sources=sources,
            share=share,
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
    devices = jax.devices()
    memory = from_primary("memory", lambda: usable_bytes(jax.local_devices()))
    parts = assemble(config, devices, bytes_per_device=memory, saved=saved)
    fields = {f.name: getattr(parts, f.name) for f in dataclasses.fields(parts)}
    return Session(**fields, tokenizer=_tokenizer(parts.model.preset))


def assemble(
    config: RunConfig,
    devices: Sequence[jax.Device],
    *,
    bytes_per_device: int | None,
    saved: LoraSettings | None = None,
) -> Assembly:
    """Choose the mesh and build the model without arrays, weights or tokenizer.

    Args:
        config: What to build.
        devices: Those of all processes, or those of a topology.
        bytes_per_device: Memory of a device, for what is `auto`; None when unknown.
        saved: Settings of adapters that are restored; their `lora.path` is not read.

    Raises:
        PresetError: The preset cannot be opened.
        ConfigError: Length, mesh, adapters, attention or remat are impossible.
    """
    if config.task in ("train", "plan"):  # the others have no backward pass
        check_remat(config.trainer.remat, devices[0])
    preset = open_preset_of(config.preset.name)
    check_length(config.data.sequence_length, preset)
    lora, adapter = saved, None
    if saved is None:
        lora, adapter = adapter_settings(config.lora, preset)
    config = with_dtype(config, devices[0].platform)
    quantize = config.preset.quantize
    quantize = None if quantize == "none" else quantize
    fused = Target.of_device(devices[0]).largest_fused_head_dim
    plan = memory_plan(
        config,
        preset.config,
        lora,
        platform=devices[0].platform,
        largest_fused_head_dim=fused,
    )
    choice = choose_mesh(
        config.mesh.shape,
        num_devices=len(devices),
        microbatch_size=plan.microbatch_size,
        planned_bytes=plan.bytes_per_device,
        bytes_per_device=bytes_per_device,
        slices=count_slices(config.mesh.slices, devices),
    )
    mesh = build_mesh(choice.shape, devices)
    dtype = config.preset.dtype
    attend = build_attention(
        config.trainer.attention,
        mesh,
        model=preset.config,
        dtype=dtype,
        is_packed=config.data.pack,
    )
    model = build_model(
        preset,
        mesh,
        dtype=dtype,
        lora=lora,
        train_embedding=config.lora.train_embedding and lora is not None,
        quantize=quantize,
        attend=attend,
    )
    remat = choose_remat(
        config.trainer.remat, plan, choice.shape, bytes_per_device=bytes_per_device
    )
    return Assembly(
        config=_with_remat(config, remat),
        choice=choice,
        mesh=mesh,
        model=model,
        adapter=adapter,
    )


def with_dtype(config: RunConfig, platform: str) -> RunConfig:
    """Fill in the dtype that suits the devices where the configuration leaves it."""
    dtype = config.preset.dtype or ("float32" if platform == "cpu" else "bfloat16")
    preset = dataclasses.replace(config.preset, dtype=dtype)
    return dataclasses.replace(config, preset=preset)


def _with_remat(config: RunConfig, remat: str) -> RunConfig:
    trainer = dataclasses.replace(config.trainer, remat=remat)
    return dataclasses.replace(config, trainer=trainer)


def open_preset_of(name: str) -> Preset:
    """Return the facts of a preset.

    Raises:
        PresetError: There is none of this name, or it cannot be read.
    """
    try:
        return open_preset(name)
    except PresetFileError as error:
        raise preset_error(error) from error


def check_length(sequence_length: int, preset: Preset) -> None:
    """Refuse sequences that are longer than the family was trained for.

    Raises:
        ConfigError: They are.
    """
    most = preset.config.max_positions
    if sequence_length > most:
        raise ConfigError(
            key="data.sequence_length",
            expected=f"at most {most:,}, the positions of {preset.name}",
            received=f"{sequence_length:,}",
            fix=f"data.sequence_length={most}",
        )


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
